//! The facts that a running QEMU tells about itself: its netdevs, its machine and its free slots.

use serde_json::{Value, json};

use crate::launcher::qmp::{Qmp, QmpError};

/// Returns the names of the netdevs and cards, as QEMU's monitor lists them.
///
/// # Errors
/// [`QmpError`].
pub(crate) fn network_names(qmp: &mut Qmp) -> Result<Vec<String>, QmpError> {
    let command = json!({ "command-line": "info network" });
    let text = qmp.execute("human-monitor-command", command)?;
    Ok(names(text.as_str().unwrap_or_default()))
}

/// Returns the names of a text of `info network`: each line begins with one, a peer's with ` \ `.
fn names(text: &str) -> Vec<String> {
    let name =
        |line: &str| Some(line.trim_start_matches([' ', '\\']).split_once(": ")?.0.to_owned());
    text.lines().filter_map(name).collect()
}

/// Returns the type of the machine, as `-machine` takes it; `None` if QEMU does not say it.
///
/// # Errors
/// [`QmpError`].
pub(crate) fn machine(qmp: &mut Qmp) -> Result<Option<String>, QmpError> {
    let property = json!({ "path": "/machine", "property": "type" });
    let answer = qmp.execute("qom-get", property)?;
    Ok(answer.as_str().and_then(|name| name.strip_suffix("-machine")).map(str::to_owned))
}

/// Returns the ids of the PCI bridges and PCI Express ports that have no device behind them.
///
/// # Errors
/// [`QmpError`].
pub(super) fn empty_ports(qmp: &mut Qmp) -> Result<Vec<String>, QmpError> {
    let mut ports = Vec::new();
    collect(&qmp.execute("query-pci", json!({}))?, &mut ports);
    Ok(ports)
}

/// Collects the empty ports of these buses. QEMU refuses JSON that is nested deeper than 1024, and
/// serde_json stops at 128.
fn collect(buses: &Value, ports: &mut Vec<String>) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for device in list(buses).iter().flat_map(|bus| list(&bus["devices"])) {
        let Some(bridge) = device.get("pci_bridge") else { continue };
        let behind = list(&bridge["devices"]);
        match device["qdev_id"].as_str().filter(|id| !id.is_empty() && behind.is_empty()) {
            Some(id) => ports.push(id.to_owned()),
            None => collect(&json!([{ "devices": behind }]), ports),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netdevs_and_cards_have_names() {
        let text = "net1-card: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:11:22:33\r\n \
                    \\ net1: index=0,type=user,net=10.0.2.0,restrict=off\r\nhub 0\r\nnet7: index=0\r\n";
        assert_eq!(names(text), ["net1-card", "net1", "net7"]);
    }

    #[test]
    fn a_port_with_a_device_behind_it_is_not_empty() {
        let card = json!({ "qdev_id": "card" });
        let buses = json!([{ "bus": 0, "devices": [
            { "qdev_id": "" },
            { "qdev_id": "rp0", "pci_bridge": { "bus": {}, "devices": [card] } },
            { "qdev_id": "rp1", "pci_bridge": { "bus": {}, "devices": [] } },
            { "qdev_id": "", "pci_bridge": { "bus": {}, "devices": [
                { "qdev_id": "inner", "pci_bridge": { "bus": {} } },
            ] } },
        ] }]);
        let mut ports = Vec::new();
        collect(&buses, &mut ports);
        assert_eq!(ports, ["rp1", "inner"]);
    }
}
