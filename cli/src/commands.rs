//! What each command does, one file each.

pub(crate) mod call;
pub(crate) mod cluster_hash;
pub(crate) mod cluster_status;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod limits;
pub(crate) mod module_build;
pub(crate) mod module_check;
pub(crate) mod module_inspect;
pub(crate) mod module_run;
pub(crate) mod new;
pub(crate) mod query;
pub(crate) mod repair_skip;
pub(crate) mod serve;
pub(crate) mod session_close;
pub(crate) mod session_list;
pub(crate) mod session_new;
pub(crate) mod session_show;
pub(crate) mod version;
pub(crate) mod watch;
pub(crate) mod work;
