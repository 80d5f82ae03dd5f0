//! Whether libvirt on this host knows the passt backend: of interest to those who choose between
//! the two, never needed by netlaunch itself.
//!
//! First source: the domain capabilities that virsh prints, whose `<interface>` lists backend
//! types (libvirt's formatdomaincaps, "Network interfaces"). Second: libvirt's XML schema, which
//! also older versions install.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Prober;
use super::program::find;
use crate::facts::Libvirt;
use crate::process::capture;

/// The time virsh has, which may start libvirt's daemon first.
const LIMIT: Duration = Duration::from_secs(3);
/// The schema of domains.
const SCHEMA: &str = "usr/share/libvirt/schemas/domaincommon.rng";

/// Asks libvirt.
pub(super) async fn probe(prober: &Prober) -> Libvirt {
    let Some(virsh) = find(OsStr::new("virsh"), &prober.path).found() else {
        let why = "virsh is not installed; netlaunch does not need it".to_owned();
        return Libvirt { why, ..Libvirt::default() };
    };
    let schema = fs::read_to_string(prober.system.join(SCHEMA)).ok();
    let (passt_backend, why) = judge(domain_capabilities(prober, &virsh).await, schema.as_deref());
    Libvirt { virsh: Some(virsh), passt_backend, why }
}

/// The verdict, and what it rests on.
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

/// What `virsh domcapabilities` prints, or why it did not.
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

/// The command that runs virsh. Captured programs get an empty environment, but libvirt finds the
/// user's daemon by these variables.
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

/// The backend types of network interfaces in a domain capabilities document; nothing where it is
/// not one.
fn backends(xml: &str) -> Option<Vec<String>> {
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

    /// A domain capabilities document, cut down to its interfaces and one other device.
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
    fn backends_of_documents() {
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
    fn the_schema_is_the_second_source() {
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
    async fn virsh_is_asked_with_the_users_directories() {
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
    async fn a_failing_virsh_is_quoted() {
        let host = Host::new();
        host.script("virsh", "echo 'error: no daemon' >&2; exit 1");
        let libvirt = probe(&host.prober).await;
        assert_eq!(libvirt.passt_backend, None);
        assert_eq!(libvirt.why, "virsh -c qemu:///session failed: error: no daemon");
    }
}
