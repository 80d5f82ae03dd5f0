//! The numbers of a user that exists for one process tree.

/// A user and a group id that belong to one process tree alone; no database lists them.
///
/// [`TransientUser::pick`] chooses them. As text, `UID:GID`, as passt's `--runas` takes it.
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
