//! Finds out whether libvirt on this host supports the passt backend.
//!
//! The answer helps users to choose between libvirt and netlaunch; netlaunch itself never needs it.
//! The first source is the domain capabilities that virsh prints: their `<interface>` lists the
//! backend types (libvirt's formatdomaincaps, "Network interfaces"). The second source is libvirt's
//! XML schema, which older versions install too.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Prober;
use crate::sys::process::capture;
use crate::sys::program::find;
use crate::types::facts::Libvirt;

/// The time limit for virsh, which may start libvirt's daemon first.
const LIMIT: Duration = Duration::from_secs(3);
/// The path of the schema for domains, below the system prefix.
const SCHEMA: &str = "usr/share/libvirt/schemas/domaincommon.rng";

/// Asks libvirt through virsh and through its schema.
pub(super) async fn probe(prober: &Prober) -> Libvirt {
    let Some(virsh) = find(OsStr::new("virsh"), &prober.path).found() else {
        let why = "virsh is not installed; netlaunch does not need it".to_owned();
        return Libvirt { why, ..Libvirt::default() };
    };
    let schema = fs::read_to_string(prober.system.join(SCHEMA)).ok();
    let (passt_backend, why) = judge(domain_capabilities(prober, &virsh).await, schema.as_deref());
    Libvirt { virsh: Some(virsh), passt_backend, why }
}

/// Returns the answer and its source.
fn judge(capabilities: Result<String, String>, schema: Option<&str>) -> (Option<bool>, String) {
    let unanswered = match capabilities.as_deref().map(backends) {
        Ok(Some(names)) if !names.is_empty() => {
            let passt = names.iter().any(|name| name == "passt");
            let why =
                format!("domain capabilities name the interface backends {}", names.join(", "));
            return (Some(passt), why);
        }
        Ok(Some(_)) => "domain capabilities name no interface backends".to_owned(),
        Ok(None) => "domain capabilities cannot be read".to_owned(),
        Err(why) => why.clone(),
    };
    match schema {
        Some(text) => {
            let passt = text.contains("<value>passt</value>");
            let does = if passt { "names" } else { "does not name" };
            (Some(passt), format!("libvirt's schema {does} passt ({unanswered})"))
        }
        None => (None, unanswered),
    }
}

/// Returns the output of `virsh domcapabilities`, or the reason why there is none.
async fn domain_capabilities(prober: &Prober, virsh: &Path) -> Result<String, String> {
    let uri = if prober.root { "qemu:///system" } else { "qemu:///session" };
    let (program, args) = command(prober, virsh, uri);
    let captured = capture(&program, &args, b"", LIMIT)
        .await
        .map_err(|error| format!("virsh cannot be run: {error}"))?;
    match captured.status {
        None => Err(format!("virsh did not answer within {} s", LIMIT.as_secs())),
        Some(status) if status.success() => {
            String::from_utf8(captured.stdout).map_err(|_| "virsh did not print text".to_owned())
        }
        Some(_) => {
            let text = String::from_utf8_lossy(&captured.stderr);
            let line = super::first_line(&text).unwrap_or("no reason given");
            Err(format!("virsh -c {uri} failed: {line}"))
        }
    }
}

/// Returns the command that runs virsh.
///
/// A captured program gets an empty environment, but libvirt finds the user's daemon by HOME and
/// XDG_RUNTIME_DIR. So env(1) sets these variables, if it is installed.
fn command(prober: &Prober, virsh: &Path, uri: &str) -> (PathBuf, Vec<OsString>) {
    let mut args: Vec<OsString> =
        [("HOME", &prober.home), ("XDG_RUNTIME_DIR", &prober.runtime_dir)]
            .into_iter()
            .filter_map(|(name, dir)| {
                let mut variable = OsString::from(name);
                variable.push("=");
                variable.push(dir.as_deref()?);
                Some(variable)
            })
            .collect();
    let ask = ["-c", uri, "domcapabilities"].map(OsString::from);
    match find(OsStr::new("env"), &prober.path).found() {
        Some(env) => {
            args.push(virsh.as_os_str().to_owned());
            args.extend(ask);
            (env, args)
        }
        None => (virsh.to_owned(), ask.to_vec()),
    }
}

/// Returns the backend types of network interfaces in a domain capabilities document; `None` if the
/// text is not such a document.
pub(super) fn backends(xml: &str) -> Option<Vec<String>> {
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<String> = Vec::new();
    let mut is_one = false;
    let mut in_backend = false;
    let mut names = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                let name = element.local_name().as_ref().to_owned();
                is_one |= open.is_empty() && name == "domainCapabilities";
                if name == "enum" {
                    let about = element.try_get_attribute("name").ok()??;
                    in_backend = open.last().is_some_and(|parent| parent == "interface")
                        && about.value.starts_with("backend");
                }
                open.push(name);
            }
            Event::End(_) => {
                let closed = open.pop();
                in_backend &= closed.as_deref() != Some("enum");
            }
            Event::Text(text) if in_backend && open.last().is_some_and(|name| name == "value") => {
                names.push(text.trim().to_owned());
            }
            Event::Eof => return (is_one && open.is_empty()).then_some(names),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    /// Returns a domain capabilities document with these interfaces and one other device.
    fn document(interface: &str) -> String {
        format!(
            "<domainCapabilities><path>/usr/bin/qemu</path><devices><disk supported='yes'>\
             <enum name='backendType'><value>passt</value></enum></disk>{interface}\
             </devices></domainCapabilities>\n"
        )
    }

    const BOTH: &str = "<interface supported='yes'><enum name='backendType'>\
                        <value>default</value>\n<value>passt</value></enum></interface>";
    const OLD: &str = "<interface supported='yes'><enum name='backendType'>\
                       <value>default</value></enum></interface>";

    #[test]
    fn only_the_backends_of_the_interface_element_are_read() {
        for (xml, expected) in [
            (document(BOTH), Some(vec!["default", "passt"])),
            (document(OLD), Some(vec!["default"])),
            (document(""), Some(vec![])),
            (document("<interface supported='no'/>"), Some(vec![])),
            ("<other/>".to_owned(), None),
            ("<domainCapabilities><devices>".to_owned(), None),
            ("error: failed to connect".to_owned(), None),
            (String::new(), None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(backends(&xml), expected, "{xml}");
        }
    }

    #[test]
    fn the_schema_is_used_when_the_capabilities_list_no_backends() {
        let (with, without) = ("<choice><value>passt</value></choice>", "<value>slirp</value>");
        let down = || Err("virsh failed".to_owned());
        for (capabilities, schema, expected, words) in [
            (Ok(document(BOTH)), Some(without), Some(true), "backends default, passt"),
            (Ok(document(OLD)), Some(with), Some(false), "backends default"),
            (Ok(document("")), Some(with), Some(true), "schema names passt"),
            (Ok("nonsense".to_owned()), Some(without), Some(false), "cannot be read"),
            (down(), Some(with), Some(true), "schema names passt (virsh failed)"),
            (down(), None, None, "virsh failed"),
        ] {
            let (passt, why) = judge(capabilities, schema);
            assert_eq!(passt, expected, "{why}");
            assert!(why.contains(words), "{why}");
        }
    }

    #[tokio::test]
    async fn virsh_gets_home_and_the_runtime_directory_of_the_user() {
        let mut host = Host::new();
        assert_eq!(probe(&host.prober).await.virsh, None);
        let (xml, asked) = (document(BOTH), host.bin().join("asked"));
        let path = host.script(
            "virsh",
            &format!("echo \"$HOME $XDG_RUNTIME_DIR $*\" > {}; echo \"{xml}\"", asked.display()),
        );
        host.prober.path.extend(["/usr/bin", "/bin"].map(PathBuf::from));
        host.prober.home = Some("/home/ann".into());
        host.prober.runtime_dir = Some("/run/user/1".into());
        let libvirt = probe(&host.prober).await;
        assert_eq!((libvirt.virsh, libvirt.passt_backend), (Some(path), Some(true)));
        assert_eq!(
            fs::read_to_string(asked).unwrap(),
            "/home/ann /run/user/1 -c qemu:///session domcapabilities\n"
        );
    }

    #[tokio::test]
    async fn the_error_of_a_failing_virsh_is_the_reason() {
        let host = Host::new();
        host.script("virsh", "echo 'error: no daemon' >&2; exit 1");
        let libvirt = probe(&host.prober).await;
        assert_eq!(libvirt.passt_backend, None);
        assert_eq!(libvirt.why, "virsh -c qemu:///session failed: error: no daemon");
    }
}
