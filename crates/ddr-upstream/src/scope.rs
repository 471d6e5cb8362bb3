//! What a request needs the right to do, as tokens name it (distribution, "Token Scope").

use std::fmt;

use ddr_oci::RepositoryName;

/// What a request needs the right to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    /// To read from a repository.
    Pull(RepositoryName),
    /// To write to it.
    Push(RepositoryName),
    /// To delete from it.
    Delete(RepositoryName),
    /// To list repositories.
    Catalog,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pull(name) => write!(f, "repository:{name}:pull"),
            Self::Push(name) => write!(f, "repository:{name}:pull,push"),
            Self::Delete(name) => write!(f, "repository:{name}:pull,delete"),
            Self::Catalog => f.write_str("registry:catalog:*"),
        }
    }
}
