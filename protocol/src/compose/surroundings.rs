//! What app files refer to and do not hold: other files, and the variables of whoever deploys.

/// A file, and what it is called in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Why a file is not there to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    Missing,
    /// Anything else, in words.
    Failed(String),
}

/// Reading is the caller's: nothing here knows files or an environment.
pub trait Surroundings {
    /// The file that `path` means to the file called `from`; `from` is empty for what whoever deploys named.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    fn read(&self, from: &str, path: &str) -> Result<Source, Unread>;

    /// A variable of whoever deploys.
    fn variable(&self, name: &str) -> Option<String>;
}

/// No files and no variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Surroundings for Nothing {
    fn read(&self, _: &str, _: &str) -> Result<Source, Unread> {
        Err(Unread::Missing)
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// How files are put together and judged.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The profiles that are active; where none is named, those of `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Files of variables, in place of the `.env` beside the first file; the later go over the earlier.
    pub env_files: Vec<String>,
    /// What is warned about is refused.
    pub strict: bool,
}
