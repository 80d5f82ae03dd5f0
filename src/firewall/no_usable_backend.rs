//! The error of a change that no firewall backend accepted.
//!
//! Networks and ports try one backend after another, and keep the error of each. The message names
//! every backend with its error, since the user decides which of them to repair.

use std::error::Error;
use std::fmt;

use super::backend::FirewallBackend;
use crate::types::error_text;

/// Each backend that was tried, in this order, and its error.
#[derive(Debug)]
pub struct NoUsableBackend<E>(pub Vec<(FirewallBackend, E)>);

impl<E: Error> fmt::Display for NoUsableBackend<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason =
            |(backend, error): &(FirewallBackend, E)| format!("{backend}: {}", error_text(&error));
        let reasons: Vec<_> = self.0.iter().map(reason).collect();
        write!(f, "no firewall backend can set the rules: {}", reasons.join("; "))
    }
}

impl<E: Error> Error for NoUsableBackend<E> {}
