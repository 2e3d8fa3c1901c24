//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::path::PathBuf;

use crate::model::escaped;

/// One thing that is wrong, with its remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// The line in it, from 1; none when it is about the file as a whole.
    pub line: Option<usize>,
    /// The key as it is written from the root (`links.auto`); none when it is not about a key.
    pub key: Option<String>,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", escaped(&self.file.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {}:", escaped(key))?;
        }
        write!(f, " {}", self.message)
    }
}

/// Everything that is wrong with one configuration, in the order of the file. Never empty. Shown as
/// one line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One problem.
    pub(super) fn of(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// One problem with a file as a whole.
    pub(crate) fn of_file(file: &std::path::Path, message: impl Into<String>) -> Self {
        let file = file.to_owned();
        Self::of(Problem { file, line: None, key: None, message: message.into() })
    }

    /// The problems, in the order of the file; none if there are none.
    pub(super) fn in_order(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| problem.line);
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Each problem.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Only those that a condition holds for.
    pub(super) fn filtered(self, keep: impl Fn(&Problem) -> bool) -> Option<Self> {
        Self::in_order(self.0.into_iter().filter(keep).collect())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
