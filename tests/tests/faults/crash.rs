//! Processes that are killed while they write, and files that are not what they were.

mod files;
mod kill;
mod load;
mod syscalls;
mod votes;
