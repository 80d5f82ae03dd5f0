//! The QEMU program: which netdev types it was built with, and how a stream netdev reconnects.
//!
//! The types come from `-netdev help`. What an option of a type is called is not in any help; QEMU
//! describes it to machines, in the schema that its control protocol returns
//! (docs/interop/qemu-qmp-ref, "query-qmp-schema"). That takes a second run, about three times as
//! long, which is left out where there is no stream netdev anyway.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Prober;
use super::cache::{Cache, Key};
use super::program::{Lookup, find, find_first};
use crate::facts::{Problem, Qemu, Reconnect};
use crate::process::{Captured, Spawn, Stdio, capture};

/// The time QEMU has for each of its answers.
const LIMIT: Duration = Duration::from_secs(10);
/// What to do without QEMU.
const INSTALL: &str = "install QEMU for this machine (Debian, Ubuntu: the package qemu-system; Fedora, RHEL: \
     qemu-kvm), or name the program with --qemu";
/// Where Red Hat's distributions have their QEMU, outside of PATH.
const REDHAT: &str = "usr/libexec/qemu-kvm";
/// Netdev types of which every QEMU has at least one.
const TELLTALE: [&str; 6] = ["hubport", "socket", "user", "tap", "bridge", "stream"];
/// What is sent to QEMU's control protocol, all at once.
const QUESTIONS: &[u8] =
    b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-qmp-schema\"}\n{\"execute\":\"quit\"}\n";
/// What is stored in the cache under this name changes with the code that finds it out.
const KIND: &str = "qemu-netdevs";

/// What QEMU says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    netdevs: BTreeSet<String>,
    reconnect: Reconnect,
}

/// Finds QEMU (`name`, by default the one for this machine's architecture) and asks it.
///
/// Returns the answer to cache where it is complete and did not come from the cache.
pub(super) async fn probe(
    prober: &Prober,
    cache: &Cache,
    name: Option<&OsStr>,
) -> (Qemu, Option<(Key, Answer)>) {
    let default = OsString::from(format!("qemu-system-{}", system(std::env::consts::ARCH)));
    let lookup = match name {
        Some(name) => find(name, &prober.path),
        None => default_lookup(&default, prober),
    };
    if let Some(problem) = lookup.problem(name.unwrap_or(&default), INSTALL) {
        let path = lookup.place();
        return (Qemu { path, problem: Some(problem), ..Qemu::default() }, None);
    }
    let Some(path) = lookup.found() else { return (Qemu::default(), None) };
    let found = Qemu { path: Some(path.clone()), ..Qemu::default() };
    let key = Key::new(KIND, &path).ok();
    if let Some(Answer { netdevs, reconnect }) = key.as_ref().and_then(|key| cache.get(key)) {
        return (Qemu { netdevs, reconnect, ..found }, None);
    }
    let netdevs = match ask_types(&path).await {
        Ok(netdevs) => netdevs,
        Err(problem) => return (Qemu { problem: Some(problem), ..found }, None),
    };
    let reconnect =
        if netdevs.contains("stream") { ask_reconnect(&path).await } else { Some(Reconnect::No) };
    let new = reconnect
        .and_then(|reconnect| Some((key?, Answer { netdevs: netdevs.clone(), reconnect })));
    (Qemu { netdevs, reconnect: reconnect.unwrap_or_default(), ..found }, new)
}

/// QEMU's name for an architecture of Rust's.
fn system(arch: &str) -> &str {
    match arch {
        "x86" => "i386",
        "powerpc" => "ppc",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// The QEMU of this machine's architecture, else qemu-kvm.
fn default_lookup(default: &OsStr, prober: &Prober) -> Lookup {
    let redhat = prober.system.join(REDHAT);
    find_first(&[default, OsStr::new("qemu-kvm"), redhat.as_os_str()], &prober.path)
}

/// Asks for the netdev types.
async fn ask_types(path: &Path) -> Result<BTreeSet<String>, Problem> {
    let args = ["-M", "none", "-netdev", "help"].map(OsString::from);
    let Captured { stdout, stderr, status, .. } =
        capture(path, &args, b"", LIMIT).await.map_err(|error| {
            Problem::new(format!("{} cannot be run: {error}", path.display()), "install it again")
        })?;
    let text = String::from_utf8_lossy(&stdout);
    let types = types(&text);
    if TELLTALE.iter().any(|name| types.contains(*name)) {
        return Ok(types);
    }
    let error = String::from_utf8_lossy(&stderr);
    let why = match (status, super::first_line(&error).or(super::first_line(&text))) {
        (None, _) => format!("did not answer within {} s", LIMIT.as_secs()),
        (_, None) => "does not look like QEMU: it lists no netdev types".to_owned(),
        (_, Some(line)) => {
            format!("does not look like QEMU: asked for its netdev types it says {line:?}")
        }
    };
    Err(Problem::new(
        format!("{} {why}", path.display()),
        "name a QEMU system emulator, such as qemu-system-x86_64",
    ))
}

/// The types in the answer to `-netdev help`: lines of one plain word, whatever stands above them.
fn types(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim)
        .filter(|line| {
            line.starts_with(|c: char| c.is_ascii_lowercase())
                && line.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
        .map(str::to_owned)
        .collect()
}

/// Asks for the options of the stream netdev; nothing where QEMU did not answer.
async fn ask_reconnect(path: &Path) -> Option<Reconnect> {
    let answer = match tokio::time::timeout(LIMIT, ask_schema(path)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let found = answer.and_then(|output| {
        let schema = schema(&output);
        let schema = schema.ok_or_else(|| io::Error::other("its output holds no schema"))?;
        Ok(reconnect(&schema))
    });
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            let qemu = path.display();
            tracing::debug!(%qemu, %error, "no QMP schema: its stream netdev is taken as unable to reconnect");
            None
        }
    }
}

/// What QEMU's control protocol answers to [`QUESTIONS`].
///
/// The output goes to a file in memory, not to a pipe: QEMU leaves at `quit` with whatever did not
/// fit into a pipe yet, without a word and with status 0, and the schema is four times as long as
/// a pipe (measured with 10.0.2: a reader that is 0.3 s late always gets 64 kB of 236).
async fn ask_schema(path: &Path) -> io::Result<Vec<u8>> {
    let args = ["-M", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"];
    let argv: Vec<OsString> =
        std::iter::once(path.into()).chain(args.map(OsString::from)).collect();
    let (input, feed) = pipe2(OFlag::O_CLOEXEC)?;
    nix::unistd::write(&feed, QUESTIONS)?; // A new pipe takes that much at once.
    drop(feed);
    let mut output = File::from(memfd_create(c"netlaunch-qmp", MFdFlags::MFD_CLOEXEC)?);
    let stdout = Stdio::Fd(output.try_clone()?.into());
    let mut child = Spawn::new(path, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Fd(input), stdout, Stdio::Null)
        .own_group()
        .start()
        .map_err(io::Error::other)?;
    child.wait().await;
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    Ok(text)
}

/// An entity of the schema, as far as it matters here. The whole schema is a quarter of a megabyte,
/// and a supervisor that has read it once would keep what it had allocated for all of it; so its
/// parts stay the text they are until they are looked at.
#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "arg-type")]
    arg_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    members: Option<&'a RawValue>,
    #[serde(borrow, default)]
    variants: Option<&'a RawValue>,
}

/// One case of a union.
#[derive(Deserialize)]
struct Variant {
    case: String,
    r#type: String,
}

/// One member of an object.
#[derive(Deserialize)]
struct Member {
    name: String,
}

/// The schema among the lines of a control protocol's output: the answer that is a list.
fn schema(output: &[u8]) -> Option<Vec<Entity<'_>>> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        r#return: &'a RawValue,
    }
    output.split(|&b| b == b'\n').find_map(|line| {
        let reply: Reply = serde_json::from_slice(line).ok()?;
        serde_json::from_str(reply.r#return.get()).ok()
    })
}

/// How the stream netdev of this schema reconnects.
fn reconnect(schema: &[Entity]) -> Reconnect {
    let entity = |name: &str| schema.iter().find(|entity| entity.name == name);
    let stream = || {
        let arguments = entity(entity("netdev_add")?.arg_type.as_deref()?)?;
        let variants: Vec<Variant> = serde_json::from_str(arguments.variants?.get()).ok()?;
        entity(&variants.iter().find(|variant| variant.case == "stream")?.r#type)
    };
    let Some(stream) = stream() else { return Reconnect::No };
    let members: Vec<Member> =
        stream.members.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let has = |name: &str| members.iter().any(|member| member.name == name);
    // Where both are there, the seconds are deprecated.
    if has("reconnect-ms") {
        Reconnect::Milliseconds
    } else if has("reconnect") {
        Reconnect::Seconds
    } else {
        Reconnect::No
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;

    /// The parts of QEMU 10.0.2's answer that matter here, and some that do not.
    const QMP: &str = include_str!("../../tests/fixtures/probe/qemu-10.0-qmp.txt");

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn netdev_types_with_and_without_a_header() {
        for (text, expected) in [
            (
                "Available netdev backend types:\nsocket\nstream\nvhost-user\nl2tpv3\n",
                &["socket", "stream", "vhost-user", "l2tpv3"][..],
            ),
            ("user\r\n  tap\n\n", &["user", "tap"]),
            ("qemu: -netdev help: Parameter 'type' expects a type\n", &[]),
            ("-M none -netdev help\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(types(text), set(expected), "{text}");
        }
    }

    #[test]
    fn reconnecting_of_schemas() {
        let entities = schema(QMP.as_bytes()).unwrap();
        assert_eq!(reconnect(&entities), Reconnect::Milliseconds);
        for (members, expected) in [
            (
                r#"{"name":"addr"},{"name":"reconnect"},{"name":"reconnect-ms"}"#,
                Reconnect::Milliseconds,
            ),
            (r#"{"name":"addr"},{"name":"reconnect-ms"}"#, Reconnect::Milliseconds),
            (r#"{"name":"addr"},{"name":"reconnect"}"#, Reconnect::Seconds),
            (r#"{"name":"addr"}"#, Reconnect::No),
        ] {
            let line = format!(
                r#"{{"return":[
                    {{"name":"netdev_add","arg-type":"1"}},
                    {{"name":"1","variants":[{{"case":"user","type":"3"}},{{"case":"stream","type":"2"}}]}},
                    {{"name":"2","members":[{members}]}},
                    {{"name":"3","members":[{{"name":"reconnect-ms"}}]}}]}}"#
            );
            let line = line.replace('\n', "");
            let entities = schema(line.as_bytes()).unwrap();
            assert_eq!(reconnect(&entities), expected, "{members}");
        }
    }

    #[test]
    fn answers_that_are_no_schema() {
        for text in [
            "",
            "{}\n",
            "{\"return\": {}}\n",
            "text\n[1]\n",
            "{\"return\": [\n",
            "{\"return\": [1, null]}\n",
        ] {
            assert!(schema(text.as_bytes()).is_none(), "{text}");
        }
        for text in [
            r#"[]"#,
            r#"[{"name":"netdev_add"}]"#,
            r#"[{"name":"netdev_add","arg-type":"9"}]"#,
            r#"[{"name":"netdev_add","arg-type":"1"},{"name":"1","variants":[{"case":"stream","type":"7"}]}]"#,
        ] {
            let entities: Vec<Entity> = serde_json::from_str(text).unwrap();
            assert_eq!(reconnect(&entities), Reconnect::No, "{text}");
        }
    }

    /// A QEMU that lists these types and gives the answers of [`QMP`].
    fn fake(types: &str) -> String {
        let qmp = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/probe/qemu-10.0-qmp.txt");
        format!("case \"$*\" in *help) printf '{types}';; *) cat >/dev/null; cat {qmp};; esac")
    }

    #[tokio::test]
    async fn the_default_is_this_machines_emulator_then_qemu_kvm() {
        let host = Host::new();
        let (qemu, _) = probe(&host.prober, &Cache::default(), None).await;
        let why = qemu.problem.unwrap().why;
        assert!(why.starts_with("qemu-system-") && why.contains("is not installed"), "{why}");
        for name in [
            "../usr/libexec/qemu-kvm",
            "qemu-kvm",
            &format!("qemu-system-{}", system(std::env::consts::ARCH)),
        ] {
            let path = host.script(name, &fake("user\\nstream\\n"));
            let (qemu, new) = probe(&host.prober, &Cache::default(), None).await;
            assert_eq!(qemu.path.unwrap().canonicalize().unwrap(), path.canonicalize().unwrap());
            assert_eq!(qemu.netdevs, set(&["user", "stream"]));
            assert_eq!((qemu.reconnect, new), (Reconnect::Milliseconds, None));
        }
    }

    /// Writes to a full pipe would fail here, as they do in QEMU, and be lost without a word.
    #[tokio::test]
    async fn an_answer_longer_than_a_pipe_is_whole() {
        let host = Host::new();
        let filler = "dd if=/dev/zero bs=300000 count=1 oflag=nonblock status=none";
        let script = fake("stream\\n")
            .replace("cat >/dev/null;", &format!("cat >/dev/null; {filler}; echo;"));
        host.script("long", &script);
        let (qemu, _) = probe(&host.prober, &Cache::default(), Some(OsStr::new("long"))).await;
        assert_eq!(qemu.reconnect, Reconnect::Milliseconds);
    }

    #[tokio::test]
    async fn only_a_stream_netdev_is_asked_for_its_options() {
        let host = Host::new();
        host.script("old", "case \"$*\" in *help) echo user;; *) echo asked > \"$0.asked\";; esac");
        let (qemu, _) = probe(&host.prober, &Cache::default(), Some(OsStr::new("old"))).await;
        assert_eq!((qemu.problem, qemu.reconnect), (None, Reconnect::No));
        assert!(!host.bin().join("old.asked").exists());
    }

    #[tokio::test]
    async fn programs_that_are_not_qemu_are_problems() {
        let host = Host::new();
        for (script, why) in [
            ("echo \"$@\"", "does not look like QEMU: asked for its netdev types it says"),
            ("echo 'libfoo.so: not found' >&2; exit 127", "libfoo.so: not found"),
            ("exit 0", "lists no netdev types"),
        ] {
            host.script("qemu", script);
            let (qemu, _) = probe(&host.prober, &Cache::default(), Some(OsStr::new("qemu"))).await;
            let problem = qemu.problem.unwrap();
            assert!(problem.why.contains(why), "{}", problem.why);
        }
    }
}
