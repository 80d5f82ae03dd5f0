//! A port's rules as chains: what they say, and the names of what they need in the table.

use std::fmt::Write;

use super::ingress::ingress;
use super::words::{
    Tested, address, gratuitous, hardware, icmp, implied, kind, number, quoted, state,
};
use super::{Extras, NoIpset, PortObjects, PortText, Way, entry};
use crate::rules::Version;
use crate::rules::port::{Kind, Path, PortRule, PortRules, PortVerdict, Step, Test};
use crate::types::InterfaceName;

/// Renders a port's rules.
///
/// # Errors
/// [`NoIpset`].
pub fn port(
    index: u32,
    port: &InterfaceName,
    rules: &PortRules,
    extras: Extras,
) -> Result<PortText, NoIpset> {
    let objects = PortObjects { index, ..PortObjects::default() };
    let mut text = PortText { objects, body: String::new(), ingress: None };
    text.path(Way::From, &rules.from_guest, extras)?;
    text.path(Way::To, &rules.to_guest, extras)?;
    if let Some((objects, ingress)) = ingress(index, port, rules, extras)? {
        text.objects.ingress = Some(objects);
        text.ingress = Some(ingress);
    }
    Ok(text)
}

impl PortText {
    pub(super) fn path(&mut self, way: Way, path: &Path, extras: Extras) -> Result<(), NoIpset> {
        let name = entry(self.objects.index, way);
        let dropped = extras.counters.then(|| format!("{name}-dropped"));
        let passed = extras.counters.then(|| format!("{name}-passed"));
        self.objects.counters.extend(dropped.iter().chain(&passed).cloned());
        let count = |counter: &Option<String>| {
            counter.as_ref().map_or_else(String::new, |name| format!("counter name \"{name}\" "))
        };
        let pass = format!("{}accept", count(&passed));
        let limited = way == Way::From && path.is_limited();
        let second = match path.packets.is_empty() || limited {
            // Each frame counts as passed once, though a flooded one is forwarded many times.
            true => pass.clone(),
            false => format!("goto {name}-ip"),
        };
        let context = |accept: &str, back: &str| Context {
            chain: name.clone(),
            extras,
            accept: accept.to_owned(),
            back: back.to_owned(),
            drop: format!("{}drop", count(&dropped)),
            // The link layer has no answer to give, as in ebtables.
            reject: None,
        };
        let frames = context(&second, &second);
        let mut root = Vec::new();
        if extras.trace {
            root.push("meta nftrace set 1".to_owned());
        }
        for step in &path.frames {
            match step {
                Step::Rule(rule) => root.extend(self.rule(rule, &frames)?),
                Step::Chain(number) => {
                    let Some(chain) = path.chains.get(*number) else { continue };
                    let jump = format!("jump {name}-{}", number + 1);
                    let comment = format!(" comment \"{}\"", quoted(&chain.name));
                    root.push(
                        kind(chain.kind).map_or_else(String::new, |k| k + " ") + &jump + &comment,
                    );
                }
            }
        }
        root.push(second.clone());
        self.chain(name.clone(), &root);
        let sub = context(&second, "return");
        for (number, chain) in path.chains.iter().enumerate() {
            let rules = self.rules(&chain.rules, &sub)?;
            self.chain(format!("{name}-{}", number + 1), &rules);
        }
        if path.packets.is_empty() {
            return Ok(());
        }
        let places: &[(&str, bool)] = match limited {
            // The bridge family has no answers where frames are forwarded.
            true => &[("ip", false), ("host", true)],
            false => &[("ip", true)],
        };
        self.objects.limited |= limited;
        for (place, answers) in places {
            let pass = if limited { "accept" } else { pass.as_str() };
            let mut packets = context(pass, pass);
            let rejects = extras.reject && way == Way::From && *answers;
            packets.reject = rejects.then(|| format!("{}reject", count(&dropped)));
            let mut rules = self.rules(&path.packets, &packets)?;
            rules.push(pass.to_owned());
            self.chain(format!("{name}-{place}"), &rules);
        }
        Ok(())
    }

    fn chain(&mut self, name: String, rules: &[String]) {
        let _ = writeln!(self.body, "\tchain {name} {{");
        for rule in rules {
            let _ = writeln!(self.body, "\t\t{rule}");
        }
        self.body.push_str("\t}\n");
        self.objects.chains.insert(name);
    }

    fn rules(&mut self, rules: &[PortRule], context: &Context) -> Result<Vec<String>, NoIpset> {
        let mut all = Vec::new();
        for rule in rules {
            all.extend(self.rule(rule, context)?);
        }
        Ok(all)
    }

    /// A rule's text; none where it decides nothing.
    fn rule(&mut self, rule: &PortRule, context: &Context) -> Result<Option<String>, NoIpset> {
        let verdict = match rule.verdict {
            PortVerdict::Accept => context.accept.as_str(),
            PortVerdict::Return => context.back.as_str(),
            PortVerdict::Reject => context.reject.as_ref().unwrap_or(&context.drop),
            PortVerdict::Drop => context.drop.as_str(),
            PortVerdict::Continue if context.extras.counters => "continue",
            PortVerdict::Continue => return Ok(None),
        };
        let mut words: Vec<String> = kind(rule.kind).into_iter().collect();
        words.extend(implied(rule).into_iter().map(str::to_owned));
        for test in &rule.tests {
            match self.test(test, rule, context)? {
                Tested::Always => {}
                Tested::Never => return Ok(None),
                Tested::If(word) => words.push(word),
            }
        }
        if context.extras.counters {
            words.push("counter".to_owned());
        }
        words.push(verdict.to_owned());
        if let Some(comment) = &rule.comment {
            words.push(format!("comment \"{}\"", quoted(comment)));
        }
        Ok(Some(words.join(" ")))
    }

    fn test(&mut self, test: &Test, rule: &PortRule, context: &Context) -> Result<Tested, NoIpset> {
        Ok(match test {
            Test::Hardware { field, address, mask, negated } => {
                hardware(*field, *address, *mask, *negated)
            }
            Test::Number { field, first, last, negated } => {
                number(*field, *first, *last, *negated, rule.kind)
            }
            Test::Address { field, among, negated } => address(*field, among, *negated, rule.kind),
            Test::Gratuitous => {
                self.objects.equal_bytes = true;
                Tested::If(gratuitous())
            }
            Test::Icmp { types, codes, negated } => icmp(*types, *codes, *negated),
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
                    Kind::Ip(Version::V6, _) => (Version::V6, "ip6 saddr"),
                    _ => (Version::V4, "ip saddr"),
                };
                self.objects.sets.insert((set.clone(), version));
                Tested::If(format!("add @{set} {{ {source} ct count over {above} }}"))
            }
            Test::State { states, direction } => Tested::If(state(states, *direction)),
        })
    }
}

/// What a rule's verdicts are called where it stands.
struct Context {
    /// The path's entry chain.
    chain: String,
    extras: Extras,
    accept: String,
    back: String,
    drop: String,
    /// `None` where nobody is answered.
    reject: Option<String>,
}
