//! Reads the number of virtual processors from `-smp`.

use super::{Parameters, Settings};

/// The parameters of `-smp` that multiply to the number of processors.
const TOPOLOGY: [&str; 8] =
    ["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"];

impl Settings {
    /// Returns the number of virtual processors at the guest's start, at least 1.
    ///
    /// As in QEMU (hw/core/machine-smp.c), `cpus=` counts, then `maxcpus=`, then the product of the
    /// topology. A number that cannot be read counts as 1, because QEMU refuses it.
    pub fn processors(&self) -> u32 {
        let smp = self.merged("smp-opts");
        let number = |key| number(&smp, key);
        let product = || TOPOLOGY.iter().filter_map(|key| number(key)).fold(1, u32::saturating_mul);
        number("cpus").or_else(|| number("maxcpus")).unwrap_or_else(product).max(1)
    }
}

/// Returns a parameter as a number; `None` if it is absent or 0, which leaves the choice to QEMU.
fn number(parameters: &Parameters, key: &str) -> Option<u32> {
    let text = std::str::from_utf8(parameters.get(key)?).ok()?;
    text.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::super::CommandLine;
    use std::ffi::OsString;

    #[test]
    fn processors_are_counted_as_qemu_counts_them() {
        for (line, expected) in [
            ("", 1),
            ("-smp 4", 4),
            ("-smp cpus=2,maxcpus=8", 2),
            ("-smp maxcpus=3", 3),
            ("-smp sockets=2,cores=2,threads=2", 8),
            ("-smp 4,sockets=1,cores=2,threads=2", 4),
            ("-smp 2 -smp 6", 6),
            ("-smp cores=2 -smp threads=2", 4),
            ("-smp 0", 1),
            ("-smp x", 1),
            ("-append -smp -name 9", 1),
        ] {
            let words: Vec<OsString> =
                line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect();
            let settings = CommandLine::parse(&words).settings(&[]);
            assert_eq!(settings.processors(), expected, "{line}");
        }
    }
}
