//! Tests unusual hosts and callers: paths that are not UTF-8, a root without some capabilities, an
//! umask that closes everything, directories of another user, low limits. Also tests the messages
//! of netlaunch: for programs, with -v, and as text for a shell.

mod hosts;
mod messages;
mod paths;
mod scene;
mod shell_text;
