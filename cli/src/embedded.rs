//! What `quorate new` writes: made by the build script of the modules that ship and of the SDK.

/// A path, with slashes, and the text of the file.
pub(crate) type File = (&'static str, &'static str);

/// A crate to begin with.
#[derive(Debug)]
pub(crate) struct Template {
    /// Its name, and that of the module which it is made of.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) description: &'static str,
    /// A command that it takes, as JSON.
    pub(crate) call: &'static str,
    /// A query that it answers, as JSON.
    pub(crate) query: &'static str,
    /// What it depends on besides the SDK.
    pub(crate) dependencies: &'static [&'static str],
    /// Its files; `@name@` and `@description@` in the manifest are for who writes them.
    pub(crate) files: &'static [File],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
