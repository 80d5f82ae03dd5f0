//! Adds the table that marks the frames of one port for the kernel's trace.
//!
//! The table has the flag `owner`: it belongs to the netlink socket that added it, no other program
//! can change it, and the kernel removes it when the socket is closed. So the request goes to the
//! kernel by nfnetlink and not through nft, whose socket is closed when nft ends.
//!
//! The chains only mark frames, and come first on each hook that a frame of the port reaches: from
//! the guest at `prerouting`, and to the guest at `forward` (for iptables, which br_netfilter calls
//! there), `output` and `postrouting`. A link-local frame meets a rule at the port's ingress hook
//! first.

use std::io;
use std::os::fd::OwnedFd;

use rand::RngExt;

use super::TraceError;
use crate::firewall::nft_kernel::{
    attribute, error_number, first_message, message, open, receive, request, send, text,
};
use crate::types::InterfaceName;

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFT_META_IIF: u32 = 4;
const NFT_META_OIF: u32 = 5;
const NFT_META_NFTRACE: u32 = 12;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFT_REG_1: u32 = 1;
/// A priority before that of every other chain of ports: ebtables has -300.
const FIRST: i32 = -400;

/// The chains in the family bridge: the name, the hook's number in linux/netfilter_bridge.h, and
/// the interface that is compared.
const CHAINS: [(&str, u32, u32); 4] = [
    ("prerouting", 0, NFT_META_IIF),
    ("forward", 2, NFT_META_OIF),
    ("output", 3, NFT_META_OIF),
    ("postrouting", 4, NFT_META_OIF),
];

/// The chains in the family netdev, which a port without a bridge has both: the name, the hook's
/// number in linux/netfilter.h, and the interfaces that are compared, one in each rule. Kernels
/// differ in which of them the interface of the egress hook is.
const NETDEV: [(&str, u32, &[u32]); 2] =
    [("ingress", 0, &[NFT_META_IIF]), ("egress", 1, &[NFT_META_IIF, NFT_META_OIF])];

/// Adds the table and returns the socket that owns it. `ingress` is the port if it has rules on its
/// ingress hook. `on_bridge` says whether it is on a bridge; otherwise it also has rules on its
/// egress hook.
///
/// # Errors
/// [`TraceError::NoOwner`] if the kernel does not know the flag, [`TraceError::Kernel`] otherwise.
pub(super) fn add(
    index: u32,
    ingress: Option<&InterfaceName>,
    on_bridge: bool,
) -> Result<OwnedFd, TraceError> {
    let table = format!("netlaunch_trace_{:08x}", rand::rng().random::<u32>());
    let mut requests = Vec::new();
    if on_bridge {
        requests.push(new_table(libc::NFPROTO_BRIDGE, &table));
    }
    for (chain, hook, interface) in CHAINS.into_iter().filter(|_| on_bridge) {
        requests.push(new_chain(libc::NFPROTO_BRIDGE, &table, chain, hook, None));
        let mark = [load(interface), is_equal(index), one(), set_mark()];
        requests.push(new_rule(libc::NFPROTO_BRIDGE, &table, chain, &mark));
    }
    if let Some(port) = ingress {
        requests.push(new_table(libc::NFPROTO_NETDEV, &table));
        for (chain, hook, interfaces) in NETDEV.into_iter().take(if on_bridge { 1 } else { 2 }) {
            requests.push(new_chain(libc::NFPROTO_NETDEV, &table, chain, hook, Some(port)));
            for interface in interfaces {
                let mark = [load(*interface), is_equal(index), one(), set_mark()];
                requests.push(new_rule(libc::NFPROTO_NETDEV, &table, chain, &mark));
            }
        }
    }
    let socket = open().map_err(TraceError::Kernel)?;
    match transact(&socket, &requests) {
        // A kernel without this flag refuses the table, which is the first request.
        Err((0, error)) if is_unknown_flag(&error) => Err(TraceError::NoOwner),
        Err((_, error)) => Err(TraceError::Kernel(error)),
        Ok(()) => Ok(socket),
    }
}

fn is_unknown_flag(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Gives the requests to the kernel as one transaction. An error has the number of answers before
/// it.
fn transact(socket: &OwnedFd, requests: &[Vec<u8>]) -> Result<(), (usize, io::Error)> {
    let edge = |kind| message(kind, 0, (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes(), &[], 0);
    let (begin, end) = (edge(libc::NFNL_MSG_BATCH_BEGIN), edge(libc::NFNL_MSG_BATCH_END));
    send(socket, &[begin, requests.concat(), end].concat()).map_err(|error| (0, error))?;
    let (mut answers, mut buffer) = (0, vec![0; 32 * 1024]);
    while answers < requests.len() {
        let mut rest = receive(socket, &mut buffer).map_err(|error| (answers, error))?;
        while let Some((message, next)) = first_message(rest) {
            match error_number(message) {
                Some(0) => answers += 1,
                Some(errno) => return Err((answers, io::Error::from_raw_os_error(errno))),
                None => {}
            }
            rest = next;
        }
    }
    Ok(())
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | libc::NLA_F_NESTED as u16, &parts.concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn new(kind: libc::c_int, family: libc::c_int, attributes: &[Vec<u8>]) -> Vec<u8> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
    request(kind, family as u8, &attributes.concat(), flags as u16)
}

fn new_table(family: libc::c_int, table: &str) -> Vec<u8> {
    let name = attribute(NFTA_TABLE_NAME, &text(table));
    new(libc::NFT_MSG_NEWTABLE, family, &[name, number(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER)])
}

fn new_chain(
    family: libc::c_int,
    table: &str,
    chain: &str,
    hook: u32,
    device: Option<&InterfaceName>,
) -> Vec<u8> {
    let mut place = vec![number(NFTA_HOOK_HOOKNUM, hook), number(NFTA_HOOK_PRIORITY, FIRST as u32)];
    place.extend(device.map(|device| attribute(NFTA_HOOK_DEV, &text(device.as_str()))));
    let all = [
        attribute(NFTA_CHAIN_TABLE, &text(table)),
        attribute(NFTA_CHAIN_NAME, &text(chain)),
        nested(NFTA_CHAIN_HOOK, &place),
        attribute(NFTA_CHAIN_TYPE, &text("filter")),
    ];
    new(libc::NFT_MSG_NEWCHAIN, family, &all)
}

fn new_rule(family: libc::c_int, table: &str, chain: &str, expressions: &[Vec<u8>]) -> Vec<u8> {
    let all = [
        attribute(NFTA_RULE_TABLE, &text(table)),
        attribute(NFTA_RULE_CHAIN, &text(chain)),
        nested(NFTA_RULE_EXPRESSIONS, expressions),
    ];
    // The kernel wants to know where in the chain a new rule goes.
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND | libc::NLM_F_ACK;
    request(libc::NFT_MSG_NEWRULE, family as u8, &all.concat(), flags as u16)
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let name = attribute(NFTA_EXPR_NAME, &text(name));
    nested(NFTA_LIST_ELEM, &[name, nested(NFTA_EXPR_DATA, data)])
}

fn load(interface: u32) -> Vec<u8> {
    let data = [number(NFTA_META_DREG, NFT_REG_1), number(NFTA_META_KEY, interface)];
    expression("meta", &data)
}

fn is_equal(index: u32) -> Vec<u8> {
    let value = attribute(NFTA_DATA_VALUE, &index.to_ne_bytes());
    // The operator 0 is equality.
    let data =
        [number(NFTA_CMP_SREG, NFT_REG_1), number(NFTA_CMP_OP, 0), nested(NFTA_CMP_DATA, &[value])];
    expression("cmp", &data)
}

fn one() -> Vec<u8> {
    let value = attribute(NFTA_DATA_VALUE, &[1]);
    let data = [number(NFTA_IMMEDIATE_DREG, NFT_REG_1), nested(NFTA_IMMEDIATE_DATA, &[value])];
    expression("immediate", &data)
}

fn set_mark() -> Vec<u8> {
    let data = [number(NFTA_META_KEY, NFT_META_NFTRACE), number(NFTA_META_SREG, NFT_REG_1)];
    expression("meta", &data)
}
