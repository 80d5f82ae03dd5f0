//! The kernel's own answer to whether an nft transaction was committed.
//!
//! The kernel takes a transaction whole or not at all, so one object shows whether it was
//! committed. The first chain that the text makes or removes, base chains aside, is the evidence if
//! it does not exist yet or exists. Otherwise the transaction adds one random number, its mark, to
//! a set of netlaunch's own table. A transaction that deletes tables was committed when one that
//! existed before is gone.
//!
//! The kernel removes a mark after [`LIFETIME`]. netlaunch does not remove it: that would be a
//! transaction, too, and at its end the kernel lets the socket wait for 10 to 30 ms, longer than
//! all other work of a change that is not nft's.
//!
//! [`super::nft_kernel`] asks the questions.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use rand::RngExt;

use super::nft_kernel::{attribute, chain, is_there, request, table, text};

/// The name of the set that contains the marks of recent transactions.
const SET: &str = "transactions";
/// The lifetime of a mark. netlaunch asks for the mark within seconds, since a tool has 30 s.
const LIFETIME: Duration = Duration::from_secs(120);

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// The proof that a transaction was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    family: u8,
    table: String,
    evidence: Evidence,
}

/// The object that shows whether a transaction was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Evidence {
    /// A chain, and whether it exists after the transaction. Before the transaction the opposite
    /// was true.
    Chain {
        /// The name of the chain.
        name: String,
        /// Whether it exists afterwards.
        exists: bool,
    },
    /// The mark is in the set.
    Mark(u32),
    /// The table does not exist.
    NoTable,
}

impl Proof {
    /// Returns the proof for this text, and the lines to add to the text: those of the mark, or
    /// none. Returns `None` if the text does not begin with a table of netlaunch. Asks the kernel
    /// for at most one chain, or for the tables that the text deletes until one exists.
    pub(super) fn of(text: &str) -> Option<(Self, String)> {
        Proof::with_answers(text, is_there)
    }

    /// Does the same as [`of`](Self::of); `is_there` returns whether the object of a question
    /// exists now.
    fn with_answers(
        text: &str,
        is_there: impl Fn(&[u8]) -> io::Result<bool>,
    ) -> Option<(Self, String)> {
        let first = text.lines().next()?.strip_prefix("add table ")?;
        let (family, name) = family_and_name(first)?;
        let proof = |evidence| Proof { family, table: name.to_owned(), evidence };
        let deleted: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("delete table ")).collect();
        if deleted.contains(&first) {
            // The absence of a table that is absent already proves nothing. If all of them are,
            // there is nothing to commit. If the kernel does not answer, the later question
            // decides.
            let mut tables = deleted.iter().filter_map(|deleted| family_and_name(deleted));
            let exists =
                |(family, name): &(u8, &str)| is_there(&table(*family, name)).unwrap_or(true);
            let (family, name) = tables.find(exists).unwrap_or((family, name));
            let evidence = Evidence::NoTable;
            return Some((Proof { family, table: name.to_owned(), evidence }, String::new()));
        }
        if let Some((name_of_chain, exists)) = first_chain(text, first)
            && is_there(&chain(family, name, name_of_chain)).is_ok_and(|now| now != exists)
        {
            let evidence = Evidence::Chain { name: name_of_chain.to_owned(), exists };
            return Some((proof(evidence), String::new()));
        }
        let mark = rand::rng().random_range(1..=u32::MAX);
        let lines = format!(
            "add set {first} {SET} {{ type mark; flags timeout; }}\n\
             add element {first} {SET} {{ {mark:#x} timeout {}s }}\n",
            LIFETIME.as_secs()
        );
        Some((proof(Evidence::Mark(mark)), lines))
    }

    /// Returns whether the kernel has committed the transaction.
    ///
    /// # Errors
    /// Returns an error if the kernel did not answer.
    pub(super) fn is_committed(&self) -> io::Result<bool> {
        let Proof { family, table, evidence } = self;
        match evidence {
            Evidence::Chain { name, exists } => {
                is_there(&chain(*family, table, name)).map(|there| there == *exists)
            }
            Evidence::Mark(mark) => is_there(&element(*family, table, *mark)),
            Evidence::NoTable => is_there(&self::table(*family, table)).map(|there| !there),
        }
    }
}

/// Returns the number of the family and the name of a table of netlaunch, such as `bridge NAME`.
fn family_and_name(table: &str) -> Option<(u8, &str)> {
    let (family, name) = table.split_once(' ')?;
    let number = match family {
        "ip" => libc::NFPROTO_IPV4,
        "ip6" => libc::NFPROTO_IPV6,
        "arp" => libc::NFPROTO_ARP,
        "bridge" => libc::NFPROTO_BRIDGE,
        "netdev" => libc::NFPROTO_NETDEV,
        _ => return None,
    };
    Some((u8::try_from(number).ok()?, name))
}

/// Returns the first chain of the table that the text makes or removes and that is no base chain,
/// and whether it exists at the end of the text. A base chain stays for other owners.
fn first_chain<'a>(text: &'a str, table: &str) -> Option<(&'a str, bool)> {
    let steps: Vec<ChainStep<'a>> =
        text.lines().filter_map(|line| ChainStep::of(line, table)).collect();
    let base: HashSet<_> = steps.iter().filter(|step| step.is_base).map(|step| step.name).collect();
    let first = steps.iter().find(|step| !base.contains(step.name))?.name;
    let last = steps.iter().rfind(|step| step.name == first)?;
    Some((first, last.adds))
}

/// A line that makes or removes a chain.
struct ChainStep<'a> {
    name: &'a str,
    adds: bool,
    /// Whether the line declares a base chain, in braces behind the name.
    is_base: bool,
}

impl<'a> ChainStep<'a> {
    fn of(line: &'a str, table: &str) -> Option<Self> {
        let (adds, rest) = match line.strip_prefix("add chain ") {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix("delete chain ")?),
        };
        let rest = rest.strip_prefix(table)?.strip_prefix(' ')?;
        let (name, declaration) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        name.bytes().all(is_plain).then_some(ChainStep {
            name,
            adds,
            is_base: !declaration.is_empty(),
        })
    }
}

/// Returns an `NFT_MSG_GETSETELEM` request for one mark.
fn element(family: u8, table: &str, mark: u32) -> Vec<u8> {
    let nested = |kind, inner: &[u8]| attribute(kind | libc::NLA_F_NESTED as u16, inner);
    let value = attribute(NFTA_DATA_VALUE, &mark.to_ne_bytes());
    let key = nested(NFTA_SET_ELEM_KEY, &value);
    let list = nested(NFTA_LIST_ELEM, &key);
    let attributes = [
        attribute(NFTA_SET_ELEM_LIST_TABLE, &text(table)),
        attribute(NFTA_SET_ELEM_LIST_SET, &text(SET)),
        nested(NFTA_SET_ELEM_LIST_ELEMENTS, &list),
    ];
    request(libc::NFT_MSG_GETSETELEM, family, &attributes.concat(), libc::NLM_F_ACK as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_a_mark_unless_a_chain_or_the_table_is_the_evidence() {
        let proven = |text: &str, now: bool| {
            let (proof, added) = Proof::with_answers(text, |_| Ok(now)).unwrap();
            (proof.evidence, added)
        };
        let adds = "add table bridge x\nadd chain bridge x y\n";
        let (evidence, added) = proven(adds, true);
        let Evidence::Mark(mark) = evidence else { panic!("{evidence:?}") };
        let expected = format!(
            "add set bridge x transactions {{ type mark; flags timeout; }}\n\
             add element bridge x transactions {{ {mark:#x} timeout 120s }}\n"
        );
        assert_eq!(added, expected);
        let base = "add table ip x\nadd chain ip x b { type filter hook forward priority 0; }\n";
        let gone = format!("{base}add chain ip x y\nflush chain ip x y\ndelete chain ip x y\n");
        for (text, now, exists) in [(adds, false, true), (&gone, true, false)] {
            let expected = Evidence::Chain { name: "y".to_owned(), exists };
            assert_eq!(proven(text, now), (expected, String::new()));
        }
        // A base chain that is made again exists afterwards.
        let again = format!("{base}delete chain ip x b\n{base}");
        for (text, now) in
            [(&*gone, false), (base, false), (&*again, true), ("add table ip x\n", false)]
        {
            assert!(matches!(proven(text, now).0, Evidence::Mark(_)), "{text}");
        }
        let quoted = "add table ip x\nadd chain ip x \"y\"\n";
        assert!(matches!(proven(quoted, false).0, Evidence::Mark(_)));
        let deletes = "add table ip x\nadd chain ip x y\ndelete table ip x\n";
        assert_eq!(proven(deletes, false), (Evidence::NoTable, String::new()));
        let both = "add table ip x\ndelete table ip x\nadd table arp y\ndelete table arp y\n";
        for (family, name) in [(libc::NFPROTO_IPV4, "x"), (libc::NFPROTO_ARP, "y")] {
            let there = table(family as u8, name);
            let (proof, _) = Proof::with_answers(both, |asked| Ok(*asked == there)).unwrap();
            assert_eq!((proof.family, proof.table.as_str()), (family as u8, name));
        }
        assert_eq!(Proof::of("delete table ip x\n"), None);
        assert_eq!(Proof::of(""), None);
    }

    /// The expected bytes are those that `nft get element ip netlaunch_network changes { 0x12345678
    /// }` sent, as strace showed them. They end behind the name of the set, which was another one.
    #[test]
    fn the_question_is_the_one_that_nft_asks() {
        let message = element(2, "netlaunch_network", 0x1234_5678);
        assert_eq!(message.len() % 4, 0);
        assert_eq!(message[..4], u32::to_ne_bytes(message.len() as u32));
        assert_eq!(message[4..6], u16::to_ne_bytes(10 << 8 | 13));
        assert_eq!(message[16], 2);
        if cfg!(target_endian = "little") {
            let end =
                b"\x14\x00\x03\x80\x10\x00\x01\x80\x0c\x00\x01\x80\x08\x00\x01\x00\x78\x56\x34\x12";
            assert!(message.ends_with(end), "{message:x?}");
        }
    }
}
