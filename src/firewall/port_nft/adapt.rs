//! Adapts a transaction that nft refused: leaves out the features that the kernel lacks and
//! that the filters can do without.
//!
//! Each call leaves out one feature, and nft then tries again. A feature whose absence would
//! let frames pass that the filter refuses is never left out without a warning.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Families, PortTable, PortText};

/// The texts of ports for the next attempt.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// The texts of ports for the next attempt.
    texts: Vec<Cow<'a, PortText>>,
    /// The families of the tables.
    pub families: Families,
    /// The texts without ICMP answers, if some have any.
    silent: Option<&'a [PortText]>,
    /// The table of the family netdev that is to be woken in a transaction of its own before the
    /// next attempt: another program made it dormant, and the kernel takes no base chain in the
    /// transaction that wakes a table.
    pub wakes_netdev: Option<PortTable>,
    woken: BTreeSet<PortTable>,
}

impl<'a> Attempt<'a> {
    /// Returns the first attempt. `silent` contains the texts without ICMP answers, if some texts
    /// have answers.
    pub fn new(texts: &'a [PortText], silent: Option<&'a [PortText]>) -> Self {
        Attempt {
            texts: texts.iter().map(Cow::Borrowed).collect(),
            families: Families::All,
            silent,
            wakes_netdev: None,
            woken: BTreeSet::new(),
        }
    }

    /// Returns the texts of ports for the next attempt.
    pub fn texts(&self) -> Vec<&PortText> {
        self.texts.iter().map(AsRef::as_ref).collect()
    }

    /// Removes the feature that nft refused at `line` with the message `said`, if the filters can
    /// do without it: ICMP answers, the family netdev, or the hook of an interface that no longer
    /// exists. Or the table of the family netdev is dormant. A port without a bridge has no rules
    /// beside those of the family netdev, so it cannot do without them. Returns whether the attempt
    /// changed.
    pub fn adapt(&mut self, line: &str, said: &str) -> bool {
        let is_on_bridge = |text: &PortText| text.objects.is_on_bridge();
        if Families::is_netdev(line) && !self.texts.iter().all(|text| is_on_bridge(text)) {
            return false;
        }
        if self.families == Families::All && Families::is_netdev(line) {
            self.families = Families::Bridge;
            if self.texts.iter().any(|text| text.ingress.is_some()) {
                tracing::warn!(
                    "this kernel has no nftables family netdev (CONFIG_NF_TABLES_NETDEV): the guests' frames to 01:80:c2:00:00:00 to 0f come to the bridge without their filters"
                );
            }
            return true;
        }
        let base = line.strip_prefix("add chain netdev ").filter(|line| line.contains(" hook "));
        if let Some((name, _)) = base.and_then(|line| line.split_once(' '))
            && said.contains("Invalid argument")
            && let Some(table) = PortTable::named(name)
            && self.woken.insert(table)
        {
            self.wakes_netdev = Some(table);
            return true;
        }
        // If the kernel lacks something, nft 1.1 may name a table of a similar name in place of the
        // statement.
        if (line.contains(" reject") || said.contains("did you mean"))
            && let Some(silent) = self.silent.take()
        {
            for (text, silent) in self.texts.iter_mut().zip(silent) {
                let ingress = silent.ingress.clone().filter(|_| text.ingress.is_some());
                *text = Cow::Owned(PortText { ingress, ..silent.clone() });
            }
            return true;
        }
        // Before Linux 6.16, nft cannot add a hook on an interface that was removed since the
        // change began.
        let is_hook = |text: &&mut Cow<'_, PortText>| {
            let own = text.ingress.as_ref().filter(|_| is_on_bridge(text));
            let table = text.objects.netdev_table().unwrap_or_default();
            own.is_some_and(|own| own.bases.iter().any(|base| base.declaration(table) == line))
        };
        match self.texts.iter_mut().find(is_hook) {
            Some(text) if said.contains("No such file or directory") => {
                text.to_mut().ingress = None;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::change;
    use super::super::testing::arp_port;
    use super::*;

    fn texts() -> [PortText; 2] {
        [arp_port(1), arp_port(2)]
    }

    fn script(attempt: &Attempt<'_>) -> String {
        change(&[], &attempt.texts(), attempt.families, &BTreeSet::new())
    }

    #[test]
    fn a_kernel_without_the_family_netdev_filters_in_the_bridge_family_alone() {
        let texts = texts();
        let mut attempt = Attempt::new(&texts, None);
        assert_eq!(Families::NETDEV, format!("add table netdev {}", PortTable::FIRST));
        assert!(script(&attempt).contains(Families::NETDEV));
        assert!(attempt.adapt(Families::NETDEV, "Could not process rule: Operation not supported"));
        let text = script(&attempt);
        assert!(!text.contains("netdev") && text.contains("p1-from"), "{text}");
        assert!(!attempt.adapt(Families::NETDEV, ""), "once");
    }

    #[test]
    fn an_interface_that_is_gone_has_no_hook_and_the_others_keep_theirs() {
        let texts = texts();
        let mut attempt = Attempt::new(&texts, None);
        let first = script(&attempt);
        let line = first.lines().find(|line| line.contains("device \"vnet1\"")).unwrap();
        assert!(!attempt.adapt(line, "Could not process rule: Cannot allocate memory"));
        assert!(attempt.adapt(line, "Could not process rule: No such file or directory"));
        let text = script(&attempt);
        assert!(!text.contains("\"vnet1\"") && text.contains("\"vnet2\""), "{text}");
    }

    #[test]
    fn a_further_table_is_adapted_as_the_first_one_is() {
        let second = PortTable::named("netlaunch_nwfilter_2").unwrap();
        let texts = [arp_port(71), arp_port(72)];
        let mut attempt = Attempt::new(&texts, None);
        let first = script(&attempt);
        let line = first.lines().find(|line| line.contains("device \"vnet71\"")).unwrap();
        assert!(attempt.adapt(line, "Could not process rule: Invalid argument"));
        assert_eq!(attempt.wakes_netdev.take(), Some(second));
        assert!(attempt.adapt(line, "Could not process rule: No such file or directory"));
        let text = script(&attempt);
        assert!(!text.contains("\"vnet71\"") && text.contains("\"vnet72\""), "{text}");
        assert!(attempt.adapt(&format!("add table netdev {second}"), "Operation not supported"));
        assert!(!script(&attempt).contains("netdev"));
    }

    #[test]
    fn a_kernel_that_cannot_reject_is_known_by_nfts_guess_too() {
        let (texts, silent) = ([arp_port(1)], [arp_port(2)]);
        let said = "No such file or directory; did you mean table 'x' in family bridge?";
        for (line, said) in [("\t\tmeta l4proto 17 reject", ""), ("table bridge y {", said)] {
            let mut attempt = Attempt::new(&texts, Some(&silent));
            assert!(attempt.adapt(line, said));
            assert!(script(&attempt).contains("p2-from"));
            assert!(!attempt.adapt(line, said), "once");
        }
    }

    #[test]
    fn a_dormant_table_is_woken_once() {
        let texts = texts();
        let mut attempt = Attempt::new(&texts, None);
        let first = script(&attempt);
        let line = first.lines().find(|line| line.contains("device \"vnet1\"")).unwrap();
        let said = "Could not process rule: Invalid argument";
        assert!(attempt.adapt(line, said));
        assert_eq!(attempt.wakes_netdev.take(), Some(PortTable::FIRST));
        assert_eq!(script(&attempt), first);
        assert!(!attempt.adapt(line, said) && attempt.wakes_netdev.is_none());
    }
}
