//! Writes a plan as JSON, for programs.
//!
//! The form has a version, and conf/schema/plan.schema.json describes it. The members of the first
//! NIC are also members of the whole plan, because a plan had one NIC in the first version.
//!
//! A path or an argument that is not UTF-8 loses bytes in its string; [`os_text`] puts the exact
//! bytes into a member of their own.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use super::bridge::TapOwner;
use super::model::{NicPlan, Plan};
use super::vmm::Vmm;
use crate::types::os_text;

/// The version of the JSON form.
pub const PLAN_VERSION: u32 = 1;

/// The members of a NIC that have no place among the members of the whole plan.
const OF_NICS_ONLY: [&str; 3] = ["id", "origin", "args"];

/// Returns the plan as JSON, in the form that conf/schema/plan.schema.json describes.
pub fn json(plan: &Plan) -> Value {
    let nics: Vec<Value> = plan.nics.iter().map(|nic| nic_json(plan, nic)).collect();
    let mut value = json!({
        "version": PLAN_VERSION,
        "notes": plan.notes,
        "warnings": plan.warnings,
        "vmm": {
            "name": plan.vmm,
            "args": words(&plan.qemu.args),
        },
        "qemu": {
            "program": plan.qemu.program.as_deref().map(path),
            "args": if plan.vmm == Vmm::Qemu { words(&plan.qemu.args) } else { json!([]) },
            "argv": plan.qemu.argv().map(|argv| words(&argv)),
        },
        "qmp": plan.qemu.qmp.as_ref().map(|qmp| json!({
            "socket": path(&qmp.socket),
            "args": words(&qmp.args()),
        })),
        "user": plan.user,
    });
    if let (Value::Object(members), Some(Value::Object(first))) = (&mut value, nics.first()) {
        let shown = first.iter().filter(|(name, _)| !OF_NICS_ONLY.contains(&name.as_str()));
        members.extend(shown.map(|(name, value)| (name.clone(), value.clone())));
        members.insert("nics".to_owned(), Value::Array(nics));
    }
    os_text::shown(value)
}

/// Returns one NIC as JSON.
fn nic_json(plan: &Plan, nic: &NicPlan) -> Value {
    json!({
        "id": nic.id,
        "origin": nic.origin,
        "backend": nic.backend,
        "fallback": nic.fallback,
        "transport": nic.transport,
        "guest": {
            "mac": nic.mac,
            "address": nic.addresses.map(|addresses| addresses.address),
            "gateway": nic.addresses.map(|addresses| addresses.gateway),
            "dns": nic.dns,
        },
        "publish": nic.publish,
        "args": words(&nic.args),
        "passt": nic.passt.as_ref().map(|passt| json!({
            "program": path(&passt.program),
            "argv": words(&passt.argv),
        })),
        "files": nic.passt.as_ref().map(|passt| json!({
            "dir": path(&plan.dir),
            "socket": passt.socket.as_deref().map(path),
            "pid": path(&passt.pid),
            "log": path(&passt.log),
        })),
        "bridge": nic.bridge.as_ref().map(|bridge| json!({
            "bridge": bridge.bridge,
            "network": bridge.network,
            "helper": match &bridge.tap_owner {
                TapOwner::Netlaunch => None,
                TapOwner::Helper(helper) => Some(path(helper)),
            },
            "queues": bridge.queue_fds.len().max(1),
            "vhost": !bridge.vhost_fds.is_empty(),
            "bandwidth": bridge.port.bandwidth,
            "vlan": bridge.port.vlan,
            "isolated": bridge.port.isolated,
        })),
        "firewall": nic.bridge.as_ref().map(|bridge| &bridge.firewall),
    })
}

fn words(words: &[OsString]) -> Value {
    words.iter().map(|word| os_text::value(word)).collect()
}

fn path(path: &Path) -> Value {
    os_text::value(path.as_os_str())
}
