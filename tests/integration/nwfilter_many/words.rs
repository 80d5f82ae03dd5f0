//! Makes the random requests of the processes, and lists the permitted refusals.

use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::history::Is;

pub const PORTS: u32 = 40;
pub const FILTERS: [&str; 5] = ["fa", "fb", "fc", "fd", "fe"];

pub fn port(number: u32) -> String {
    format!("port{number}")
}

/// A request to netlaunch.
#[derive(Debug, Clone)]
pub enum Request {
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

/// Returns a filter that bindings name. Only references use the other filters.
fn bound(rng: &mut StdRng) -> &'static str {
    FILTERS[rng.random_range(0..3)]
}

impl Request {
    pub fn random(rng: &mut StdRng, serial: u32) -> Self {
        let port = port(rng.random_range(0..PORTS));
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        match rng.random_range(0..100) {
            0..35 => Request::bind(port, rng, serial),
            35..60 => Request::Unbind { port },
            60..78 => Request::define(filter(rng), rng, serial, true),
            78..83 => Request::Undefine { filter: filter(rng) },
            83..87 => Request::Reload,
            87..92 => Request::Show { args: args(&["binding-list", "--json"]) },
            92..95 => Request::Show { args: args(&["binding-dumpxml", &port]) },
            95..97 => Request::Show { args: args(&["list"]) },
            _ => Request::Show { args: args(&["dumpxml", filter(rng)]) },
        }
    }

    fn bind(port: String, rng: &mut StdRng, serial: u32) -> Self {
        // Some filters need the value. A filter that begins to need it is refused if it is on this
        // port.
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
        Request::Bind { port, serial, document }
    }

    /// Makes a definition that differs from all others. With `any`, it may have an invalid
    /// reference.
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
        Request::Define { filter, serial, document }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Request::Bind { .. } => "binding-create",
            Request::Unbind { .. } => "binding-delete",
            Request::Define { .. } => "define",
            Request::Undefine { .. } => "undefine",
            Request::Show { .. } => "list, dumpxml",
            Request::Reload => "firewall reload",
        }
    }

    pub fn document(&self) -> Option<&str> {
        match self {
            Request::Bind { document, .. } | Request::Define { document, .. } => Some(document),
            _ => None,
        }
    }

    /// Returns the arguments. `file` is the path of the document.
    pub fn args(&self, file: &Path) -> Vec<String> {
        let file = file.to_string_lossy().into_owned();
        let all = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        match self {
            Request::Bind { .. } => all(&["nwfilter", "binding-create", &file]),
            Request::Unbind { port } => all(&["nwfilter", "binding-delete", port]),
            Request::Define { .. } => all(&["nwfilter", "define", &file]),
            Request::Undefine { filter } => all(&["nwfilter", "undefine", filter]),
            Request::Show { args } => [vec!["nwfilter".to_owned()], args.clone()].concat(),
            Request::Reload => all(&["firewall", "reload"]),
        }
    }

    /// Returns the target of the change and its state after the change.
    pub fn makes(&self) -> Option<(String, Is)> {
        match self {
            Request::Bind { port, serial, .. } => Some((port.clone(), Is::There(*serial))),
            Request::Unbind { port } => Some((port.clone(), Is::Gone)),
            Request::Define { filter, serial, .. } => {
                Some(((*filter).to_owned(), Is::There(*serial)))
            }
            Request::Undefine { filter } => Some(((*filter).to_owned(), Is::Gone)),
            Request::Show { .. } | Request::Reload => None,
        }
    }
}

/// Returns whether this message is a permitted refusal of the request.
pub fn is_refusal(request: &Request, said: &str) -> bool {
    let known: &[&str] = match request {
        Request::Bind { .. } => &[
            " has a filter already; ",
            "no filter is called ",
            " refers to, is missing: ",
            " needs values for FROM: ",
        ],
        Request::Unbind { .. } => &[" has no filter; "],
        Request::Define { .. } => &[
            " refers to, is missing: ",
            " needs values for FROM: ",
            " refer to each other in a circle, ",
        ],
        Request::Undefine { .. } => &["no filter is called ", " is in use by the port "],
        Request::Show { .. } => &["no filter is called ", " has no filter; "],
        Request::Reload => &[],
    };
    known.iter().any(|words| said.contains(words))
}

/// Returns whether a line is a note or a warning that a command may print in any case. On a loaded
/// machine, commands wait for the lock.
pub fn is_expected_note(line: &str) -> bool {
    let known = [
        " is defined in ",
        " only in plain frames",
        " come to the bridge without the filter",
        ", which is locked by ",
        ", which no rule of the filter ",
    ];
    known.iter().any(|words| line.contains(words))
}
