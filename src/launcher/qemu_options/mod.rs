//! Reads a QEMU command line as QEMU itself reads it.
//!
//! ```text
//! words ─ CommandLine::parse ─▶ arguments (which word belongs to which option)
//!                                   │  files of -readconfig, read by the caller
//!                                   ▼
//!                               Settings (one per -netdev, -object, section, ...; -set applied)
//! ```
//!
//! [`CommandLine::parse`] divides the caller's words into options and their values.
//! [`CommandLine::settings`] reads the values in QEMU's grammar ([`Parameters`]) and inserts the
//! sections of configuration files in QEMU's order. The words themselves never change, so a caller
//! that replaces one option keeps all other options byte for byte, also unknown ones. The sources
//! of the grammar are QEMU's manual (qemu(1), docs/system/invocation) and the behaviour of QEMU
//! 10.0, which tests/integration/qemu_options.rs compares.
//!
//! The module is pure: it starts no program and opens no file. A mistake in a command line gives
//! some reading and no error, because QEMU itself refuses the mistake with a better message.

mod command_line;
mod config_file;
mod json;
mod option_values;
mod own_networks;
mod parameters;
mod pass_through;
mod probe_call;
mod processors;
mod settings;
mod size;

pub(super) use json::json_value;

pub use command_line::{Argument, CommandLine};
pub use config_file::ConfigFile;
pub use option_values::takes_value;
pub use own_networks::{UserNetwork, card_on, user_networks};
pub use parameters::{Parameters, boolean, path_value};
pub use pass_through::{PassThrough, pass_through};
pub use settings::{Setting, Settings};
pub use size::size;
