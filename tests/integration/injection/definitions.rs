//! Injects faults into commands that replace the definition of a network or a filter, as root and
//! as an ordinary user. Nothing uses the definition, so only its file changes.

use std::fs;

use super::networks::list_files;
use super::sweep::{Ended, Scenario};
use crate::common::{As, Netns, Sandbox, USER, finish, text};

/// The kind of definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Network,
    Filter,
}

impl Kind {
    /// Returns the command for this kind.
    fn command(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::Filter => "nwfilter",
        }
    }

    /// Returns a definition with the name `lab`. A test finds the number in it again.
    fn document(self, number: u32) -> String {
        match self {
            Kind::Network => format!(
                "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000097</uuid>\
                 <mtu size='{number}'/><bridge name='nlt0'/><ip address='10.97.0.1' \
                 netmask='255.255.255.0'/></network>"
            ),
            Kind::Filter => format!(
                "<filter name='lab'><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000097</uuid><rule \
                 action='drop' direction='out'><udp dstportstart='{number}'/></rule></filter>"
            ),
        }
    }
}

/// The numbers in the old and the new definition.
const OLD: u32 = 1401;
const NEW: u32 = 1402;

pub struct Definitions {
    sandbox: Sandbox,
    _netns: Netns,
    kind: Kind,
}

impl Definitions {
    pub fn new(who: As, kind: Kind) -> Self {
        let netns = Netns::routed();
        let definitions =
            Definitions { sandbox: Sandbox::new(who, Some(&netns)), _netns: netns, kind };
        definitions.define(OLD).unwrap();
        definitions
    }

    /// Writes a document, and returns the arguments that define it.
    fn arguments(&self, number: u32) -> Vec<String> {
        let file = self.sandbox.path("home/lab.xml");
        fs::write(&file, self.kind.document(number)).unwrap();
        if self.sandbox.who == As::User {
            std::os::unix::fs::chown(&file, Some(USER), Some(USER)).unwrap();
        }
        let file = file.to_string_lossy().into_owned();
        [self.kind.command(), "define", &file].map(str::to_owned).to_vec()
    }

    fn run(&self, args: &[String]) -> Result<String, String> {
        let output = finish(self.sandbox.netlaunch(args));
        let said = format!("{args:?}: {}", text(&output.stderr));
        output.status.success().then(|| text(&output.stdout)).ok_or(said)
    }

    fn define(&self, number: u32) -> Result<(), String> {
        self.run(&self.arguments(number)).map(drop)
    }

    /// Checks that the definition has one of these numbers.
    fn has(&self, numbers: &[u32]) -> Result<(), String> {
        let shown = self.run(&[self.kind.command(), "dumpxml", "lab"].map(str::to_owned))?;
        let found = numbers.iter().any(|number| shown.contains(&format!("'{number}'")));
        found.then_some(()).ok_or_else(|| format!("none of {numbers:?}: {shown}"))
    }

    /// Checks that the directories hold the definition, and no other file.
    fn left(&self) -> Result<(), String> {
        let mut files = String::new();
        for name in ["state", "run", "config"] {
            list_files(&self.sandbox.path(name), &mut files);
        }
        let mine = |line: &&str| !line.ends_with("/lab.xml");
        let left: Vec<&str> = files.lines().filter(mine).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    }
}

impl Scenario for Definitions {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn prepare(&mut self) -> Vec<String> {
        self.define(OLD).unwrap();
        self.arguments(NEW)
    }

    fn check_success(&mut self, _: &Ended) -> Result<(), String> {
        self.has(&[NEW])
    }

    fn next(&mut self, number: usize, ended: &Ended) -> Result<(), String> {
        // A failed command leaves one of the two definitions, and never a part of one.
        self.has(if ended.success { &[NEW] } else { &[OLD, NEW] })?;
        if number.is_multiple_of(2) {
            self.define(NEW)?;
            self.has(&[NEW])?;
        }
        self.left()
    }
}
