//! The user id and group id of a user that exists for one process tree only.

/// A user id and a group id that only one process tree has; no user database lists them.
///
/// [`TransientUser::pick`] chooses them. They display as `UID:GID`, the form that passt's `--runas`
/// takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransientUser {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl std::fmt::Display for TransientUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}
