//! `netlaunch network update`: changes one element of a network, also while it runs.

use std::os::unix::ffi::OsStrExt;

use super::args::{UpdateAction, UpdateArgs};
use super::network_error::NetworkError;
use super::{Failure, editor, runtime};
use crate::network::manager::{Manager, ManagerError, UpdateScope, Updated};
use crate::network::update::{NetworkUpdate, UpdateVerb};

/// Changes the element, and reports the things that have changed.
pub(super) fn update(manager: &Manager, args: &UpdateArgs) -> Result<(), Failure> {
    let name = &args.name;
    let inline = args.element.as_os_str().as_bytes();
    // The name of a file can begin with '<' too; it can then be written as ./<...
    let (xml, source_name) = if inline.trim_ascii_start().starts_with(b"<") {
        (inline.to_vec(), "the element".to_owned())
    } else {
        (editor::read(&args.element)?, args.element.display().to_string())
    };
    let update = NetworkUpdate {
        verb: match args.change {
            UpdateAction::Add | UpdateAction::AddLast => UpdateVerb::AddLast,
            UpdateAction::AddFirst => UpdateVerb::AddFirst,
            UpdateAction::Modify => UpdateVerb::Modify,
            UpdateAction::Delete => UpdateVerb::Delete,
        },
        section: args.section,
        xml,
        parent: args.parent_index.and_then(|number| usize::try_from(number).ok()),
    };
    let scope = match (args.live, args.config) {
        (true, true) => UpdateScope::Both,
        (true, false) => UpdateScope::Live,
        (false, true) => UpdateScope::Config,
        (false, false) => UpdateScope::Current,
    };
    let updated = runtime()?.block_on(manager.update(name, &update, scope));
    let Updated { live, config } = updated.map_err(|error| match error {
        ManagerError::Update(error) => NetworkError::Update { source_name, error },
        other => other.into(),
    })?;
    let what = match (live, config) {
        (true, true) => "the running network and its definition have",
        (true, false) => "the running network has",
        (false, _) => "the definition has",
    };
    tracing::info!("network {name}: {what} changed");
    Ok(())
}
