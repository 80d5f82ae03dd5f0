//! Answers as JSON: the launch, its events and its end.
//!
//! The plan is shown by [`plan::json`](crate::launcher::plan::json). The names of events are those
//! of `netlaunch --log-format=json` where both have the event.

use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use crate::launcher::record::Record;
use crate::launcher::{LaunchEvent, Outcome};
use crate::types::os_text;

/// The version of the JSON forms of an event and of an outcome.
const EVENT_VERSION: u32 = 1;

/// Shows a launch as `netlaunch ps --json` does; the list has this launch only.
pub(super) fn record(record: &Record) -> Value {
    os_text::shown(json!({ "version": record.version, "launches": [record] }))
}

/// Shows how a launch ended.
pub(super) fn outcome(outcome: &Outcome) -> Value {
    versioned(outcome_members(outcome))
}

/// Shows an event.
pub(super) fn event(event: &LaunchEvent) -> Value {
    versioned(match event {
        LaunchEvent::Started { backend, fallback } => {
            json!({ "event": "started", "backend": backend, "fallback": fallback })
        }
        LaunchEvent::Daemonized { pid } => json!({ "event": "daemonized", "pid": pid }),
        LaunchEvent::PasstEnded { nic, reason } => {
            json!({ "event": "passt-ended", "nic": nic, "reason": reason })
        }
        LaunchEvent::PasstRestarted { nic, pid, attempt } => {
            json!({ "event": "passt-restarted", "nic": nic, "pid": pid, "attempt": attempt })
        }
        LaunchEvent::BackendLost { nic } => json!({ "event": "backend-lost", "nic": nic }),
        LaunchEvent::AddressLearned { nic, address, addresses6 } => {
            json!({
                "event": "address-learned",
                "nic": nic,
                "address": address,
                "addresses6": addresses6,
            })
        }
        LaunchEvent::Ended(outcome) => {
            json!({ "event": "ended", "outcome": outcome_members(outcome) })
        }
    })
}

fn outcome_members(outcome: &Outcome) -> Value {
    json!({
        "status": outcome.code(),
        "qemu": outcome.qemu.map(|qemu| json!({ "exit": qemu.code(), "signal": qemu.signal() })),
        "signal": outcome.signal,
        "backend_lost": outcome.backend_lost,
        "left": outcome.left,
    })
}

fn versioned(mut value: Value) -> Value {
    value["version"] = EVENT_VERSION.into();
    value
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;
    use crate::capi::schema::{faults, valid};
    use crate::launcher::plan::Backend;

    #[test]
    fn the_schema_of_events_has_exactly_the_events() {
        let schema = include_str!("../../conf/schema/capi-event.schema.json");
        let address = Some([10, 0, 2, 15].into());
        let events = [
            LaunchEvent::Started { backend: Backend::Slirp, fallback: Some("why".to_owned()) },
            LaunchEvent::Daemonized { pid: 7 },
            LaunchEvent::PasstEnded { nic: 0, reason: "exited with status 1".to_owned() },
            LaunchEvent::PasstRestarted { nic: 1, pid: 7, attempt: 1 },
            LaunchEvent::BackendLost { nic: 1 },
            LaunchEvent::AddressLearned {
                nic: 1,
                address,
                addresses6: vec!["fe80::1".parse().unwrap()],
            },
            LaunchEvent::Ended(Outcome::default()),
        ];
        for one in &events {
            let mut shown = event(one);
            valid("capi-event", &shown);
            shown["more"] = 1.into();
            assert_ne!(faults("capi-event", &shown), [] as [String; 0], "{shown}");
        }
        let schema: Value = serde_json::from_str(schema).unwrap();
        let described = schema["oneOf"].as_array().unwrap().len();
        let in_source = include_str!("answer.rs").split("#[cfg(test)]").next().unwrap();
        let arms = in_source.matches("\"event\": \"").count();
        assert_eq!((described, arms), (events.len(), events.len()));
    }

    #[test]
    fn an_event_of_one_nic_names_the_nic() {
        let address = Some([10, 0, 2, 15].into());
        for one in [
            LaunchEvent::PasstEnded { nic: 1, reason: "exited with status 1".to_owned() },
            LaunchEvent::PasstRestarted { nic: 1, pid: 7, attempt: 1 },
            LaunchEvent::BackendLost { nic: 1 },
            LaunchEvent::AddressLearned { nic: 1, address, addresses6: Vec::new() },
        ] {
            assert_eq!(event(&one)["nic"], 1, "{one:?}");
        }
    }

    #[test]
    fn the_schema_of_outcomes_accepts_each_end() {
        for (status, signal) in [(None, Some(15)), (Some(33 << 8), None), (Some(9), None)] {
            let qemu = status.map(ExitStatus::from_raw);
            let left = vec!["the tap vnet7 is still there".to_owned()];
            let shown = outcome(&Outcome { qemu, signal, left, ..Outcome::default() });
            valid("capi-outcome", &shown);
        }
    }

    #[test]
    fn an_outcome_has_the_exit_status_and_the_reason() {
        let qemu = Some(ExitStatus::from_raw(33 << 8));
        let mut ended = Outcome { qemu, ..Outcome::default() };
        let expected = json!({
            "version": 1, "status": 33, "qemu": {"exit": 33, "signal": null}, "signal": null,
            "backend_lost": false, "left": [],
        });
        assert_eq!(outcome(&ended), expected);
        ended.qemu = Some(ExitStatus::from_raw(9));
        let shown = event(&LaunchEvent::Ended(ended));
        assert_eq!((&shown["event"], &shown["version"]), (&"ended".into(), &1.into()));
        assert_eq!(shown["outcome"]["qemu"], json!({"exit": null, "signal": 9}));
        assert_eq!(shown["outcome"]["status"], 137);
    }
}
