//! What the processes are told, and what they may answer.

use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::history::Is;

pub const PORTS: u32 = 40;
pub const FILTERS: [&str; 5] = ["fa", "fb", "fc", "fd", "fe"];

pub fn port(number: u32) -> String {
    format!("port{number}")
}

/// The words of one process.
#[derive(Debug, Clone)]
pub enum Word {
    Bind { port: String, serial: u32, document: String },
    Unbind { port: String },
    Define { filter: &'static str, serial: u32, document: String },
    Undefine { filter: &'static str },
    Show { args: Vec<String> },
    Reload,
}

fn filter(rng: &mut StdRng) -> &'static str {
    FILTERS[rng.random_range(0..FILTERS.len())]
}

/// One that ports have; the others are used by references alone, or by nobody for a while.
fn bound(rng: &mut StdRng) -> &'static str {
    FILTERS[rng.random_range(0..3)]
}

impl Word {
    pub fn random(rng: &mut StdRng, serial: u32) -> Self {
        let port = port(rng.random_range(0..PORTS));
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        match rng.random_range(0..100) {
            0..35 => Word::bind(port, rng, serial),
            35..60 => Word::Unbind { port },
            60..78 => Word::define(filter(rng), rng, serial, true),
            78..83 => Word::Undefine { filter: filter(rng) },
            83..87 => Word::Reload,
            87..92 => Word::Show { args: args(&["binding-list", "--json"]) },
            92..95 => Word::Show { args: args(&["binding-dumpxml", &port]) },
            95..97 => Word::Show { args: args(&["list"]) },
            _ => Word::Show { args: args(&["dumpxml", filter(rng)]) },
        }
    }

    fn bind(port: String, rng: &mut StdRng, serial: u32) -> Self {
        // Some filters need it, and one that comes to need it cannot be put on this port.
        let from = match rng.random_range(0..8) {
            0 => "",
            _ => "<parameter name='FROM' value='1000'/>",
        };
        let document = format!(
            "<filterbinding><portdev name='{port}'/><mac address='52:54:00:00:{:02x}:{:02x}'/>\
             <filterref filter='{}'>{from}<parameter name='SERIAL' value='{serial}'/></filterref>\
             </filterbinding>",
            serial >> 8 & 0xff,
            serial & 0xff,
            bound(rng),
        );
        Word::Bind { port, serial, document }
    }

    /// A definition that no other one equals. With `any`, it may refer to what it must not.
    pub fn define(filter: &'static str, rng: &mut StdRng, serial: u32, any: bool) -> Self {
        let mut rules = format!(
            "<rule action='drop' direction='out'><udp dstportstart='{serial}'/></rule>\
             <rule action='drop' direction='in'><arp opcode='2'/></rule>"
        );
        if rng.random_bool(0.5) {
            rules += "<rule action='drop' direction='inout'><tcp srcportstart='$SERIAL'/></rule>";
        }
        if rng.random_bool(0.2) {
            rules += "<rule action='drop' direction='out'><ip protocol='udp' srcportstart='$FROM'/></rule>";
        }
        let at = FILTERS.iter().position(|other| *other == filter).unwrap_or_default();
        let later = &FILTERS[at + 1..];
        for other in later.iter().filter(|_| rng.random_bool(0.25)) {
            rules += &format!("<filterref filter='{other}'/>");
        }
        match rng.random_range(0..20) {
            0 if any => rules += "<filterref filter='nobody'/>",
            1 if any => rules += &format!("<filterref filter='{}'/>", FILTERS[0]),
            2..6 => rules += "<filterref filter='no-mac-spoofing'/>",
            _ => {}
        }
        let document = format!("<filter name='{filter}'>{rules}</filter>");
        Word::Define { filter, serial, document }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Word::Bind { .. } => "binding-create",
            Word::Unbind { .. } => "binding-delete",
            Word::Define { .. } => "define",
            Word::Undefine { .. } => "undefine",
            Word::Show { .. } => "list, dumpxml",
            Word::Reload => "firewall reload",
        }
    }

    pub fn document(&self) -> Option<&str> {
        match self {
            Word::Bind { document, .. } | Word::Define { document, .. } => Some(document),
            _ => None,
        }
    }

    /// The arguments; `file` holds the document.
    pub fn args(&self, file: &Path) -> Vec<String> {
        let file = file.to_string_lossy().into_owned();
        let all = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        match self {
            Word::Bind { .. } => all(&["nwfilter", "binding-create", &file]),
            Word::Unbind { port } => all(&["nwfilter", "binding-delete", port]),
            Word::Define { .. } => all(&["nwfilter", "define", &file]),
            Word::Undefine { filter } => all(&["nwfilter", "undefine", filter]),
            Word::Show { args } => [vec!["nwfilter".to_owned()], args.clone()].concat(),
            Word::Reload => all(&["firewall", "reload"]),
        }
    }

    /// What it changes, and what that is then.
    pub fn makes(&self) -> Option<(String, Is)> {
        match self {
            Word::Bind { port, serial, .. } => Some((port.clone(), Is::There(*serial))),
            Word::Unbind { port } => Some((port.clone(), Is::Gone)),
            Word::Define { filter, serial, .. } => Some(((*filter).to_owned(), Is::There(*serial))),
            Word::Undefine { filter } => Some(((*filter).to_owned(), Is::Gone)),
            Word::Show { .. } | Word::Reload => None,
        }
    }
}

/// Whether a word may be refused so.
pub fn is_refusal(word: &Word, said: &str) -> bool {
    let known: &[&str] = match word {
        Word::Bind { .. } => &[
            " has a filter already; ",
            "no filter is called ",
            " refers to, is missing: ",
            " needs values for FROM: ",
        ],
        Word::Unbind { .. } => &[" has no filter; "],
        Word::Define { .. } => &[
            " refers to, is missing: ",
            " needs values for FROM: ",
            " refer to each other in a circle, ",
        ],
        Word::Undefine { .. } => &["no filter is called ", " is in use by the port "],
        Word::Show { .. } => &["no filter is called ", " has no filter; "],
        Word::Reload => &[],
    };
    known.iter().any(|words| said.contains(words))
}

/// Whether a line is a note or a warning that a command may print whatever becomes of it. A loaded
/// machine makes commands wait for the lock.
pub fn is_said(line: &str) -> bool {
    let known = [
        " is defined in ",
        " in plain frames alone",
        " come to the bridge without the filter",
        ", which is locked by ",
    ];
    known.iter().any(|words| line.contains(words))
}
