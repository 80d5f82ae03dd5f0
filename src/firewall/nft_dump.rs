//! Reads the shape of one of netlaunch's own nftables tables from the kernel.
//!
//! The kernel is asked by nfnetlink and not through nft: that takes microseconds where a process
//! takes milliseconds, and with 1,000 ports `nft list` takes seconds to print and parse each rule.
//! The form that nft prints also differs between versions. Only the shape is read: the chains, the
//! number of rules in each, and the chains that the elements of maps lead to.
//!
//! The content of a rule is not compared. Only netlaunch knows its chains, so another program that
//! changes them flushes or deletes them. The messages are those of linux/netfilter/nf_tables.h.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::nft_kernel::{
    FAMILY, HEADER, attribute, error_number, first_message, open, receive, request, send, text,
};

// Attributes of linux/netfilter/nf_tables.h.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// The target of a map's element that accepts. No chain has this name, which is a word of nft.
pub(super) const ACCEPT: &str = "accept";
/// A table that is there and does nothing.
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;
/// The kernel fills at most 32 KiB at a time (NLMSG_GOODSIZE and netlink_dump()).
const BUFFER: usize = 64 * 1024;
/// The number of attempts at a listing that changes by other programs interrupt.
const LISTINGS: usize = 10;

/// The shape of a chain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ChainShape {
    /// The number of its rules.
    pub rules: usize,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// The shape of a table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// Whether the kernel takes no packet through the table (`flags dormant`).
    pub dormant: bool,
    /// The chains by name.
    pub chains: BTreeMap<String, ChainShape>,
    /// The base chains of the family netdev that are on no interface. Linux 6.14 and 6.15 keep
    /// such a chain when its interface goes, and do not put it on a later interface.
    pub unhooked: BTreeSet<String>,
    /// The elements of each map: the key's bytes, and the chain that the element leads to, or
    /// [`ACCEPT`].
    pub maps: BTreeMap<String, Vec<(Vec<u8>, String)>>,
}

impl TableShape {
    /// Returns the number of rules in a chain, 0 if there is no such chain.
    pub fn rules(&self, chain: &str) -> usize {
        self.chains.get(chain).map_or(0, |chain| chain.rules)
    }

    /// Returns how many elements of a map lead to a chain.
    pub fn leads(&self, map: &str, chain: &str) -> usize {
        let elements = self.maps.get(map).map_or(&[][..], Vec::as_slice);
        elements.iter().filter(|(_, target)| target == chain).count()
    }

    /// Returns the chain that a map has for the interface with this number.
    pub fn chain_of_interface(&self, map: &str, index: u32) -> Option<&str> {
        let key = index.to_ne_bytes();
        let (_, chain) = self.maps.get(map)?.iter().find(|(other, _)| *other == key)?;
        Some(chain)
    }
}

/// Reads the shape of a table with these maps. Returns `None` if the table does not exist, or if
/// the kernel has no tables of the family.
///
/// # Errors
/// Returns the kernel's error, usually because the process lacks CAP_NET_ADMIN.
pub(super) fn table_shape(
    family: u8,
    table: &str,
    maps: &[&str],
) -> io::Result<Option<TableShape>> {
    Ok(table_shapes(family, &[table.to_owned()], maps)?.remove(table))
}

/// Does the same for several tables, with one listing of the chains of the whole family.
pub(super) fn table_shapes(
    family: u8,
    tables: &[String],
    maps: &[&str],
) -> io::Result<BTreeMap<String, TableShape>> {
    let mut shapes = BTreeMap::new();
    for table in tables {
        let mut shape = TableShape::default();
        let named = attribute(NFTA_TABLE_NAME, &text(table));
        let question = request(libc::NFT_MSG_GETTABLE, family, &named, libc::NLM_F_ACK as u16);
        let answer = match exchange(&question) {
            Err(error) if is_absent(&error) => continue,
            answer => answer?,
        };
        for message in &answer {
            let flags = Attributes(message).number(NFTA_TABLE_FLAGS).unwrap_or(0);
            shape.dormant |= flags & NFT_TABLE_F_DORMANT != 0;
        }
        shapes.insert(table.clone(), shape);
    }
    if shapes.is_empty() {
        return Ok(shapes);
    }
    for message in list(libc::NFT_MSG_GETCHAIN, family, &[])? {
        let all = Attributes(&message);
        let table = all.text(NFTA_CHAIN_TABLE).unwrap_or_default();
        if let (Some(name), Some(shape)) = (all.text(NFTA_CHAIN_NAME), shapes.get_mut(&table)) {
            // A chain without a hook has no policy; NF_DROP is 0.
            let drops = all.number(NFTA_CHAIN_POLICY) == Some(0);
            if i32::from(family) == libc::NFPROTO_NETDEV && is_unhooked(&all) {
                shape.unhooked.insert(name.clone());
            }
            shape.chains.insert(name, ChainShape { rules: 0, drops });
        }
    }
    for (table, shape) in &mut shapes {
        for (chain, rules) in rule_counts(family, table)? {
            if let Some(chain) = shape.chains.get_mut(&*String::from_utf8_lossy(&chain)) {
                chain.rules += rules;
            }
        }
        for map in maps {
            shape.maps.insert((*map).to_owned(), map_elements(family, table, map)?);
        }
    }
    Ok(shapes)
}

/// Returns the names of all tables of a family.
pub(super) fn table_names(family: u8) -> io::Result<Vec<String>> {
    match list(libc::NFT_MSG_GETTABLE, family, &[]) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        listed => {
            let name = |message: &Vec<u8>| Attributes(message).text(NFTA_TABLE_NAME);
            Ok(listed?.iter().filter_map(name).collect())
        }
    }
}

/// Returns the elements of a map as [`elements`] does; none if there is no such map.
pub(super) fn map_elements(
    family: u8,
    table: &str,
    map: &str,
) -> io::Result<Vec<(Vec<u8>, String)>> {
    let set = [
        attribute(NFTA_SET_ELEM_LIST_TABLE, &text(table)),
        attribute(NFTA_SET_ELEM_LIST_SET, &text(map)),
    ];
    match list(libc::NFT_MSG_GETSETELEM, family, &set.concat()) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        listed => Ok(listed?.iter().flat_map(|message| elements(message)).collect()),
    }
}

/// Returns the names of a table's chains, and the number of rules in each. A name can be there
/// several times. A table of 1,000 ports has 50,000 rules, so no rule is copied.
fn rule_counts(family: u8, table: &str) -> io::Result<Vec<(Vec<u8>, usize)>> {
    let named = text(table);
    let count = |counts: &mut Vec<(Vec<u8>, usize)>, message: &[u8]| {
        let all = Attributes(message);
        // Kernels before 4.1 dump the rules of all tables.
        let Some(chain) = all.first(NFTA_RULE_CHAIN) else { return };
        if all.first(NFTA_RULE_TABLE) != Some(&named) {
            return;
        }
        let chain = chain.strip_suffix(&[0]).unwrap_or(chain);
        // The kernel lists the rules chain by chain.
        match counts.last_mut() {
            Some((last, rules)) if last == chain => *rules += 1,
            _ => counts.push((chain.to_vec(), 1)),
        }
    };
    list_into(libc::NFT_MSG_GETRULE, family, &attribute(NFTA_RULE_TABLE, &named), count)
}

/// Returns whether these are the attributes of a base chain that is on no interface.
fn is_unhooked(chain: &Attributes<'_>) -> bool {
    chain.nested(NFTA_CHAIN_HOOK).is_some_and(|hook| {
        let devices = hook.first(NFTA_HOOK_DEVS).unwrap_or_default();
        devices.is_empty() && hook.first(NFTA_HOOK_DEV).is_none()
    })
}

/// Returns whether an error says that the table or map does not exist, or that the kernel does not
/// know the family.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    )
}

/// Returns the elements in a message that lead to chains or accept: their keys, and the chains or
/// [`ACCEPT`].
pub(super) fn elements(message: &[u8]) -> Vec<(Vec<u8>, String)> {
    let elements = Attributes(message).nested(NFTA_SET_ELEM_LIST_ELEMENTS);
    let elements = elements.iter().flat_map(|list| list.all(NFTA_LIST_ELEM));
    let leads = elements.filter_map(|element| {
        let element = Attributes(element);
        let verdict = element.nested(NFTA_SET_ELEM_DATA)?.nested(NFTA_DATA_VERDICT)?;
        let key = element.nested(NFTA_SET_ELEM_KEY)?.first(NFTA_DATA_VALUE)?.to_vec();
        let accepts = || verdict.number(NFTA_VERDICT_CODE) == u32::try_from(libc::NF_ACCEPT).ok();
        let chain = verdict.text(NFTA_VERDICT_CHAIN);
        Some((key, chain.or_else(|| accepts().then(|| ACCEPT.to_owned()))?))
    });
    leads.collect()
}

/// Lists all objects of a kind. Starts again if a change by another program interrupts the listing.
pub(super) fn list(kind: libc::c_int, family: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    list_into(kind, family, attributes, copy)
}

/// Does the same as [`list`], and gives each object to `take` together with what came before it.
fn list_into<T: Default>(
    kind: libc::c_int,
    family: u8,
    attributes: &[u8],
    take: impl Fn(&mut T, &[u8]),
) -> io::Result<T> {
    let question = request(kind, family, attributes, libc::NLM_F_DUMP as u16);
    let mut listed = exchange_into(&question, &take);
    for _ in 1..LISTINGS {
        match &listed {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                listed = exchange_into(&question, &take);
            }
            _ => break,
        }
    }
    listed
}

/// Asks the kernel, and returns the attributes of each message of its answer.
pub(super) fn exchange(question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    exchange_into(question, &copy)
}

fn copy(all: &mut Vec<Vec<u8>>, attributes: &[u8]) {
    all.push(attributes.to_vec());
}

/// Asks the kernel, and gives the attributes of each message of its answer to `take`.
fn exchange_into<T: Default>(question: &[u8], take: &impl Fn(&mut T, &[u8])) -> io::Result<T> {
    let socket = match open() {
        Ok(socket) => socket,
        // A kernel without nfnetlink has no tables.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        Err(error) => return Err(error),
    };
    send(&socket, question)?;
    let (mut buffer, mut answer) = (vec![0; BUFFER], T::default());
    loop {
        let mut rest = receive(&socket, &mut buffer)?;
        while let Some((message, next)) = first_message(rest) {
            let half = |at: usize| message.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
            let (kind, flags) = (half(4).unwrap_or(0), half(6).unwrap_or(0));
            if flags & libc::NLM_F_DUMP_INTR as u16 != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match error_number(message) {
                Some(0) => return Ok(answer),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None if i32::from(kind) == libc::NLMSG_DONE => return Ok(answer),
                None => {
                    if let Some(attributes) = message.get(HEADER + FAMILY..) {
                        take(&mut answer, attributes);
                    }
                }
            }
            rest = next;
        }
    }
}

/// A sequence of netlink attributes.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Returns the values of all attributes of a kind.
    pub(super) fn all(&self, kind: u16) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        let pairs = std::iter::from_fn(move || {
            let head = rest.get(..4)?;
            let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
            let length = usize::from(half(0));
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((half(2) & !(libc::NLA_F_NESTED as u16), value))
        });
        pairs.filter(move |(other, _)| *other == kind).map(|(_, value)| value)
    }

    /// Returns the value of the first attribute of a kind.
    pub(super) fn first(&self, kind: u16) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    pub(super) fn nested(&self, kind: u16) -> Option<Attributes<'a>> {
        self.first(kind).map(Attributes)
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        let value = self.first(kind)?;
        let value = value.strip_suffix(&[0]).unwrap_or(value);
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// Returns a number of 32 bits, which nf_tables writes in big-endian order.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        let value = self.first(kind)?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }

    /// Returns a number of 64 bits, as [`number`](Self::number) does.
    pub(super) fn long(&self, kind: u16) -> Option<u64> {
        let value = self.first(kind)?;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_chain_without_an_interface_is_unhooked() {
        let device = |kind| attribute(kind, &text("vnet0"));
        let devices = |inner: &[u8]| attribute(NFTA_HOOK_DEVS, inner);
        for (hook, expected) in [
            (devices(&[]), true),
            (Vec::new(), true),
            (devices(&device(1)), false),
            // Before Linux 5.5.
            (device(NFTA_HOOK_DEV), false),
        ] {
            let chain = attribute(NFTA_CHAIN_HOOK, &hook);
            assert_eq!(is_unhooked(&Attributes(&chain)), expected, "{hook:?}");
        }
        assert!(!is_unhooked(&Attributes(&[])), "no base chain");
    }

    #[test]
    fn the_keys_and_chains_of_a_maps_elements_are_read() {
        let verdict = attribute(NFTA_VERDICT_CHAIN, &text("nl-nlt0-to"));
        let data = attribute(NFTA_SET_ELEM_DATA, &attribute(NFTA_DATA_VERDICT, &verdict));
        let key = |index: u32| {
            let value = attribute(NFTA_DATA_VALUE, &index.to_ne_bytes());
            attribute(NFTA_SET_ELEM_KEY, &value)
        };
        let element = |index| attribute(NFTA_LIST_ELEM, &[key(index), data.clone()].concat());
        let list = [element(7), element(8)].concat();
        let message = attribute(NFTA_SET_ELEM_LIST_ELEMENTS, &list);
        let maps = BTreeMap::from([("to_guest".to_owned(), elements(&message))]);
        let shape = TableShape { maps, ..TableShape::default() };
        assert_eq!(shape.leads("to_guest", "nl-nlt0-to"), 2);
        assert_eq!(shape.leads("from_guest", "nl-nlt0-to"), 0);
        assert_eq!(shape.chain_of_interface("to_guest", 8), Some("nl-nlt0-to"));
        assert_eq!(shape.chain_of_interface("to_guest", 9), None);
        let code = |code: i32| attribute(NFTA_VERDICT_CODE, &code.to_be_bytes());
        for (verdict, target) in [(code(1), Some(ACCEPT)), (code(0), None)] {
            let data = attribute(NFTA_SET_ELEM_DATA, &attribute(NFTA_DATA_VERDICT, &verdict));
            let element = attribute(NFTA_LIST_ELEM, &[key(7), data].concat());
            let read = elements(&attribute(NFTA_SET_ELEM_LIST_ELEMENTS, &element));
            assert_eq!(read.first().map(|(_, target)| &**target), target);
        }
        // A truncated message has no attribute.
        assert_eq!(elements(&message[..message.len() - 8]), []);
        assert_eq!(elements(&[]), []);
    }
}
