//! Renders a port's rules as chains, and collects the names of the objects that they need.
//!
//! Each path has an entry chain, one chain for each sub chain that is not short ([`super::root`]),
//! and a chain for the second stage if it has packet rules. The names of the objects become the
//! port's record, so no object may be rendered without its name in [`PortObjects`].

use std::fmt::Write;
use std::sync::Arc;

use super::ingress::ingress;
use super::root::{RootStep, decides, root_steps, sub_chains};
use super::words::{
    Tested, address, gratuitous, hardware, icmp, implied, kind, neighbor, number, protocol_v6,
    quoted, state,
};
use super::{Extras, NoIpset, PortHook, PortObjects, PortText, entry};
use crate::firewall::rules::Version;
use crate::firewall::rules::port::{
    FrameKind, Number, Path, PortRule, PortRules, PortVerdict, Test,
};
use crate::types::InterfaceName;

/// Renders a port's rules.
///
/// # Errors
/// Returns [`NoIpset`] if a rule uses an ipset.
pub fn port(
    index: u32,
    port: &InterfaceName,
    rules: &PortRules,
    extras: Extras,
) -> Result<PortText, NoIpset> {
    let mut text = PortText::new(index);
    text.path(PortHook::From, &rules.from_guest, extras)?;
    if let Some((objects, ingress)) = ingress(port, rules, extras, &text)? {
        text.objects_mut().ingress = Some(objects);
        text.ingress = Some(ingress);
    }
    text.path(PortHook::To, &rules.to_guest, extras)?;
    Ok(text)
}

impl PortText {
    /// Returns a text without chains for the port with this number.
    pub(super) fn new(index: u32) -> Self {
        let objects = Arc::new(PortObjects { index, ..PortObjects::default() });
        PortText { objects, body: String::new(), ingress: None }
    }

    /// Returns the names of the objects. While a text is rendered, nothing else has them.
    fn objects_mut(&mut self) -> &mut PortObjects {
        Arc::make_mut(&mut self.objects)
    }

    pub(super) fn path(
        &mut self,
        hook: PortHook,
        path: &Path,
        extras: Extras,
    ) -> Result<(), NoIpset> {
        let name = entry(self.objects.index, hook);
        let dropped = extras.counters.then(|| format!("{name}-dropped"));
        let passed = extras.counters.then(|| format!("{name}-passed"));
        self.objects_mut().counters.extend(dropped.iter().chain(&passed).cloned());
        let count = |counter: &Option<String>| {
            counter.as_ref().map_or_else(String::new, |name| format!("counter name \"{name}\" "))
        };
        let pass = format!("{}accept", count(&passed));
        let limited = hook == PortHook::From && path.is_limited();
        // Only the first stage counts passed frames, so that a flooded frame, which the bridge
        // forwards many times, counts once.
        let one_stage = path.packets.is_empty() || limited;
        let second = if one_stage { pass.clone() } else { format!("goto {name}-ip") };
        let context = |accept: &str, back: &str| Context {
            chain: name.clone(),
            extras,
            accept: accept.to_owned(),
            back: back.to_owned(),
            drop: format!("{}drop", count(&dropped)),
            // A rule of the first stage cannot reject, since the link layer has no answer; ebtables
            // is the same.
            reject: None,
        };
        let frames = context(&second, &second);
        let mut root = Vec::new();
        if extras.trace {
            root.push("meta nftrace set 1".to_owned());
        }
        let steps = root_steps(path);
        for step in &steps {
            match step {
                RootStep::Rule { rule, .. } => root.extend(self.rule(rule, &frames)?),
                RootStep::Jump { number, chain } => {
                    let jump = format!("jump {name}-{}", number + 1);
                    let comment = format!(" comment \"{}\"", quoted(&chain.name));
                    root.push(
                        kind(chain.kind).map_or_else(String::new, |k| k + " ") + &jump + &comment,
                    );
                }
            }
        }
        root.extend((!decides(&steps)).then(|| second.clone()));
        self.chain(name.clone(), &root);
        let sub = context(&second, "return");
        for (number, chain) in sub_chains(path) {
            let rules = self.rules(&chain.rules, &sub)?;
            self.chain(format!("{name}-{}", number + 1), &rules);
        }
        if path.packets.is_empty() {
            return Ok(());
        }
        // The bridge family cannot reject in `forward`.
        let places: &[(&str, bool)] =
            if limited { &[("ip", false), ("host", true)] } else { &[("ip", true)] };
        self.objects_mut().limited |= limited;
        for (place, answers) in places {
            let pass = if limited { "accept" } else { pass.as_str() };
            let mut packets = context(pass, pass);
            let rejects = extras.reject && hook == PortHook::From && *answers;
            packets.reject = rejects.then(|| format!("{}reject", count(&dropped)));
            let mut rules = self.rules(&path.packets, &packets)?;
            rules.push(pass.to_owned());
            self.chain(format!("{name}-{place}"), &rules);
        }
        Ok(())
    }

    pub(super) fn chain(&mut self, name: String, rules: &[String]) {
        let _ = writeln!(self.body, "\tchain {name} {{");
        for rule in rules {
            self.body.extend(["\t\t", rule, "\n"]);
        }
        self.body.push_str("\t}\n");
        let count = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let objects = self.objects_mut();
        objects.rules.insert(name.clone(), count);
        objects.chains.insert(name);
    }

    fn rules(&mut self, rules: &[PortRule], context: &Context) -> Result<Vec<String>, NoIpset> {
        let mut all = Vec::new();
        for rule in rules {
            all.extend(self.rule(rule, context)?);
        }
        Ok(all)
    }

    /// Returns the number of nft rules that stand for a rule.
    pub(super) fn lines_of(&mut self, rule: &PortRule, extras: Extras) -> Result<usize, NoIpset> {
        let (chain, accept, back, drop) = Default::default();
        let context = Context { chain, extras, accept, back, drop, reject: None };
        Ok(self.rule(rule, &context)?.len())
    }

    /// Returns a rule as one nft rule or several, or as none if it has no effect.
    fn rule(&mut self, rule: &PortRule, context: &Context) -> Result<Vec<String>, NoIpset> {
        let verdict = match rule.verdict {
            PortVerdict::Accept => context.accept.as_str(),
            PortVerdict::Return => context.back.as_str(),
            PortVerdict::Reject => context.reject.as_ref().unwrap_or(&context.drop),
            PortVerdict::Drop => context.drop.as_str(),
            PortVerdict::Continue if context.extras.counters => "continue",
            PortVerdict::Continue => return Ok(Vec::new()),
        };
        let mut start = kind(rule.kind).unwrap_or_default();
        implied(rule).into_iter().for_each(|word| add_word(&mut start, word));
        let mut lines = vec![start];
        for test in &rule.tests {
            match self.test(test, rule, context)? {
                Tested::Always => {}
                Tested::Never => return Ok(Vec::new()),
                Tested::If(word) => lines.iter_mut().for_each(|line| add_word(line, &word)),
                Tested::AnyOf(words) => {
                    let with = |line: &String, word: &String| {
                        let mut line = line.clone();
                        add_word(&mut line, word);
                        line
                    };
                    lines = words
                        .iter()
                        .flat_map(|word| lines.iter().map(move |line| with(line, word)))
                        .collect();
                }
            }
        }
        for line in &mut lines {
            if context.extras.counters {
                add_word(line, "counter");
            }
            add_word(line, verdict);
            if let Some(comment) = &rule.comment {
                add_word(line, &format!("comment \"{}\"", quoted(comment)));
            }
        }
        Ok(lines)
    }

    fn test(&mut self, test: &Test, rule: &PortRule, context: &Context) -> Result<Tested, NoIpset> {
        Ok(match test {
            Test::Hardware { field, address, mask, negated } => {
                hardware(*field, *address, *mask, *negated)
            }
            Test::Number { field: Number::Protocol, first, negated, .. }
                if matches!(rule.kind, FrameKind::Ip(Version::V6, _)) =>
            {
                protocol_v6(*first, *negated, rule.tests.iter().any(Test::is_transport))
            }
            Test::Number { field, first, last, negated } => {
                number(*field, *first, *last, *negated, rule.kind)
            }
            Test::Address { field, addresses, negated } => {
                address(*field, addresses, *negated, rule.kind)
            }
            Test::Gratuitous => {
                self.objects_mut().equal_bytes = true;
                Tested::If(gratuitous())
            }
            Test::Icmp { types, codes, negated } => icmp(*types, *codes, *negated),
            Test::Neighbor(message) => Tested::If(neighbor(message)),
            Test::TcpFlags { mask, flags, negated } => {
                let sign = if *negated { "!=" } else { "==" };
                Tested::If(format!("@th,104,8 & {mask:#x} {sign} {flags:#x}"))
            }
            Test::Set { name, .. } => {
                return Err(NoIpset { origin: rule.origin.clone(), set: name.clone() });
            }
            Test::Connections { above } => {
                let set = format!("{}-c{}", context.chain, self.objects.sets.len() + 1);
                let (version, source) = match rule.kind {
                    FrameKind::Ip(Version::V6, _) => (Version::V6, "ip6 saddr"),
                    _ => (Version::V4, "ip saddr"),
                };
                self.objects_mut().sets.insert((set.clone(), version));
                Tested::If(format!("add @{set} {{ {source} ct count over {above} }}"))
            }
            Test::State { states, direction } => Tested::If(state(states, *direction)),
        })
    }
}

/// Adds a word to a line of words.
fn add_word(line: &mut String, word: &str) {
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(word);
}

/// The nft verdicts for one chain's rules.
struct Context {
    /// The path's entry chain.
    chain: String,
    extras: Extras,
    accept: String,
    back: String,
    drop: String,
    /// The statement that rejects; `None` if the rule drops without an answer.
    reject: Option<String>,
}
