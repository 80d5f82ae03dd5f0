//! The text of a launch's error, with the option or variable that mends it.
//!
//! The library's errors name no option and no variable, because its callers have neither.

use super::hint;
use crate::launcher::{
    LaunchDirError, LaunchError, PasstEndCause, PasstError, PublishError, SHORTAGE_FIX, StartError,
};
use crate::types::error_text;

/// Returns the error as one line for the user.
pub(super) fn text(error: &LaunchError) -> String {
    let LaunchError::Start(start) = error else { return error_text(error) };
    let plain = error_text(error);
    match start {
        StartError::Port(port) => port_text(port),
        StartError::LaunchDir(error) => dir_text(error),
        StartError::Filter(error) => {
            let hint = error.downcast_ref().map(hint::binding).unwrap_or_default();
            format!("{plain}{hint}")
        }
        StartError::Prepare(_) => {
            format!("{plain}; {SHORTAGE_FIX}")
        }
        StartError::Passt(PasstError::PortNotListening { cause: Some(port), .. }) => {
            plain.replace(&error_text(port), &port_text(port))
        }
        StartError::Passt(PasstError::Ended { cause: Some(cause), .. }) => match &**cause {
            PasstEndCause::Port(port) => plain.replace(&error_text(port), &port_text(port)),
            _ => plain,
        },
        _ => plain,
    }
}

/// Returns the error of a launch directory as one line for the user.
pub(super) fn dir_text(error: &LaunchDirError) -> String {
    let fix = match error {
        LaunchDirError::Root { .. } => {
            "make it writable, or set NETLAUNCH_STATE_DIR to a directory that is"
        }
        LaunchDirError::Untrusted { .. } => {
            "set NETLAUNCH_STATE_DIR to a directory that no other user can change"
        }
        LaunchDirError::Foreign(_) => {
            "remove it, or set NETLAUNCH_STATE_DIR to a directory of your own"
        }
        LaunchDirError::Make { .. } => {
            "make its parent writable, or set NETLAUNCH_STATE_DIR to a directory that is"
        }
        _ => return error_text(error),
    };
    format!("{}; {fix}", error_text(error))
}

fn port_text(error: &PublishError) -> String {
    let plain = error_text(error);
    match error {
        PublishError::Busy { publish, forward: None, .. }
        | PublishError::NoAddress { publish, forward: None, .. } => {
            // The text names the port as the user wrote it after the option.
            let publish = publish.to_string();
            plain
                .replace(&format!("than {publish}"), &format!("than -p {publish}"))
                .replace(&format!("so {publish} cannot"), &format!("so -p {publish} cannot"))
        }
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_with_its_option() {
        let said = |forward: Option<&str>| {
            let error = PublishError::Busy {
                publish: "80".parse().unwrap(),
                forward: forward.map(str::to_owned),
                port: 80,
                protocol: crate::types::Protocol::Tcp,
                address: [127, 0, 0, 1].into(),
                holder: Some(("httpd".to_owned(), 7)),
            };
            text(&LaunchError::Start(StartError::Port(error)))
        };
        let busy = "in use by httpd (pid 7): stop that program, or";
        let own = said(None);
        assert!(own.contains(&format!("{busy} publish another port than -p ")), "{own}");
        let callers = said(Some("hostfwd=::80-:80 of -nic user"));
        let end = format!("{busy} forward another port than hostfwd=::80-:80 of -nic user");
        assert!(callers.ends_with(&end), "{callers}");
    }

    #[test]
    fn an_error_of_the_filter_has_the_command_that_mends_it() {
        let port: crate::types::InterfaceName = "vnet0".parse().unwrap();
        let error = crate::nwfilter::port::BindingError::Bound(port);
        let start = StartError::Filter(crate::launcher::GuestPortError::new(error));
        let said = text(&LaunchError::Start(start));
        assert!(said.contains("first: netlaunch nwfilter unbind vnet0; "), "{said}");
    }
}
