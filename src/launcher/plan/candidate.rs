//! A backend with the decision whether it can serve a request.

use serde::{Deserialize, Serialize};

use super::request::Backend;
use crate::types::Setting;
use crate::types::facts::Problem;

/// A backend, whether it can serve, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Candidate {
    /// The backend.
    pub backend: Backend,
    /// Whether it can serve the request.
    pub usable: bool,
    /// The reason of this decision.
    pub why: String,
    /// The change that would make the backend usable; `None` if it is usable.
    pub fix: Option<String>,
    /// The settings of the launch that the fix names.
    #[serde(skip)]
    pub settings: &'static [Setting],
}

impl Candidate {
    /// Makes the candidate from the decision about a backend.
    pub(super) fn new(backend: Backend, decision: Result<String, Problem>) -> Self {
        match decision {
            Ok(why) => Candidate { backend, usable: true, why, fix: None, settings: &[] },
            Err(Problem { why, fix, settings }) => {
                Candidate { backend, usable: false, why, fix: Some(fix), settings }
            }
        }
    }
}
