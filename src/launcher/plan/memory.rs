//! Makes the guest's memory shareable for vhost-user, which needs a file that passt can map.
//!
//! QEMU takes the main memory from `-machine memory-backend=`, from `-numa node,memdev=`, from
//! `-mem-path`, or allocates it itself. The first two are kept if each backend that they name is
//! shared. `-mem-path` is refused. Memory that QEMU would allocate is replaced by a shared backend
//! of the same size.
//!
//! Not every memory object is guest memory: that of a DIMM is, that of a device such as ivshmem is
//! not.

use std::ffi::OsString;

use super::request::Request;
use crate::launcher::qemu_options::{Setting, Settings, boolean, size};
use crate::types::Id;
use crate::types::facts::Qemu;

/// The memory of most machines without `-m`, in bytes.
const DEFAULT: u64 = 128 << 20;
/// QEMU rounds the memory up to a multiple of this number of bytes (measured: `-m 100k` gives
/// 104 kB).
const UNIT: u64 = 8192;
/// The devices whose `memdev=` is guest memory too.
const DIMMS: [&[u8]; 5] = [
    b"pc-dimm",
    b"nvdimm",
    b"virtio-mem-pci",
    b"virtio-mem-pci-non-transitional",
    b"virtio-pmem-pci",
];

/// The reason why the guest's memory cannot be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The size in `-m` is not valid.
    #[error(
        "the transport vhost-user needs the guest's memory size, and -m {0:?} is none QEMU takes: write one such as -m 512 or -m 2G"
    )]
    Size(String),
    /// The caller's QEMU arguments have a private memory backend that no device uses yet, which is
    /// meant for memory that is plugged in later.
    #[error(
        "the transport vhost-user needs shared guest memory, and the QEMU arguments have a memory backend of their own: add share=on to it, or drop it"
    )]
    NotShared,
    /// The caller's QEMU arguments name a memory backend that passt cannot map.
    #[error(
        "the transport vhost-user needs shared guest memory, and {0} of the QEMU arguments is private: {1}"
    )]
    Private(String, &'static str),
    /// `-mem-path` makes private memory, and QEMU refuses it together with a memory backend.
    #[error(
        "the transport vhost-user needs shared guest memory, and that of -mem-path is private: replace {0} by -object memory-backend-file,id=mem,size=SIZE,mem-path=FILE,share=on -machine memory-backend=mem"
    )]
    MemPath(String),
    /// A NUMA node has no memory backend.
    #[error(
        "the transport vhost-user needs shared guest memory, and {0} names no memory backend: add -object memory-backend-memfd,id=mem0,size=SIZE,share=on and memdev=mem0 to it"
    )]
    Numa(String),
}

/// Returns the arguments that make the guest's memory shareable; none if the caller's arguments
/// make it shareable already.
///
/// In serve mode the size is unknown, and a note tells the user which arguments to add.
pub(super) fn shared(
    request: &Request,
    id: &Id,
    qemu: &Qemu,
    notes: &mut Vec<String>,
) -> Result<Vec<OsString>, MemoryError> {
    let Some(line) = request.command_line() else {
        notes.push(format!(
            "vhost-user needs shared guest memory: add -object memory-backend-memfd,id={id}-mem,size=SIZE,share=on -machine memory-backend={id}-mem to QEMU, SIZE being that of -m"
        ));
        return Ok(Vec::new());
    };
    let settings = line.settings(&request.config_files);
    for file in settings.unreadable_files() {
        notes.push(format!(
            "netlaunch cannot read QEMU's configuration file {}, so it does not know the memory that the file sets up",
            file.display()
        ));
    }
    for device in settings.of_group("device") {
        let driver = device.parameters.get("driver").unwrap_or_default();
        if let Some(memdev) = device.parameters.get("memdev").filter(|_| DIMMS.contains(&driver)) {
            check(&settings, memdev, qemu)?;
        }
    }
    if settings.of_group("object").any(|object| is_unused(&settings, object) && !shares(object)) {
        return Err(MemoryError::NotShared);
    }
    if let Some(backend) = settings.merged("machine").get("memory-backend") {
        check(&settings, backend, qemu)?;
        return Ok(Vec::new());
    }
    let is_node = |setting: &&Setting| setting.parameters.is("type", "node");
    let nodes: Vec<_> = settings.of_group("numa").filter(is_node).collect();
    let mut backends = nodes.iter().filter_map(|node| node.parameters.get("memdev")).peekable();
    if backends.peek().is_some() {
        backends.try_for_each(|backend| check(&settings, backend, qemu))?;
        return Ok(Vec::new());
    }
    if let Some(node) = nodes.first() {
        return Err(MemoryError::Numa(node.written.clone()));
    }
    if let Some(option) = line.spelling("mem-path") {
        return Err(MemoryError::MemPath(option.display().to_string()));
    }
    let bytes = memory(&settings, qemu)?;
    Ok(vec![
        "-object".into(),
        format!("memory-backend-memfd,id={id}-mem,size={bytes},share=on").into(),
        "-machine".into(),
        format!("memory-backend={id}-mem").into(),
    ])
}

/// Checks that passt can map the memory object `id`. QEMU itself refuses an id without an object.
fn check(settings: &Settings, id: &[u8], qemu: &Qemu) -> Result<(), MemoryError> {
    let Some(object) = settings.find("object", id) else { return Ok(()) };
    let private = |fix| Err(MemoryError::Private(object.written.clone(), fix));
    if !shares(object) {
        return private("add share=on to it");
    }
    if object.parameters.is("qom-type", "memory-backend-ram") && !qemu.shared_ram {
        return private("use memory-backend-memfd, because this QEMU gives that kind no file");
    }
    Ok(())
}

/// Returns whether a memory object is shared. Two types are shared by default
/// (backends/hostmem-*.c).
fn shares(object: &Setting) -> bool {
    let qom_type = object.parameters.get("qom-type").unwrap_or_default();
    let default = matches!(qom_type, b"memory-backend-memfd" | b"memory-backend-shm");
    object.parameters.get("share").and_then(boolean).unwrap_or(default)
}

/// Returns whether an object is memory that no other option names.
///
/// Memory for SGX enclaves does not count, because it is never guest memory.
fn is_unused(settings: &Settings, object: &Setting) -> bool {
    let qom_type = object.parameters.get("qom-type").unwrap_or_default();
    if !qom_type.starts_with(b"memory-backend-") || qom_type == b"memory-backend-epc" {
        return false;
    }
    let id = object.parameters.get("id");
    let mut users = ["device", "machine", "numa"].into_iter().flat_map(|g| settings.of_group(g));
    !users.any(|user| user.parameters.iter().any(|(key, value)| key != b"id" && Some(value) == id))
}

/// Returns the guest's memory in bytes: `size` of `-m`, of `[memory]` or of `-machine
/// memory.size=`.
fn memory(settings: &Settings, qemu: &Qemu) -> Result<u64, MemoryError> {
    let default = qemu.machine.as_ref().and_then(|machine| machine.memory).unwrap_or(DEFAULT);
    let (memory, machine) = (settings.merged("memory"), settings.merged("machine"));
    let bytes = match (memory.get("size"), machine.get("memory.size")) {
        (Some(text), _) => {
            // Here a number without a unit is in MiB.
            let bare = text.last().is_some_and(u8::is_ascii_digit);
            let whole = if bare { [text, b"M"].concat() } else { text.to_vec() };
            // QEMU also parses the text without the added unit, so it refuses 1.5.
            size(text).and_then(|_| size(&whole)).ok_or(text)
        }
        (None, Some(text)) => size(text).ok_or(text),
        (None, None) => Ok(default),
    };
    let invalid = |text: &[u8]| MemoryError::Size(String::from_utf8_lossy(text).into_owned());
    let bytes = bytes.map_err(invalid)?;
    let bytes = if bytes == 0 { default } else { bytes };
    bytes.checked_next_multiple_of(UNIT).ok_or_else(|| invalid(b"0xffffffffffffffff"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::plan::Command;
    use crate::launcher::qemu_options::ConfigFile;
    use crate::types::facts::Machine;

    const OBJECT: &str = "memory-backend-file,id=m,size=1G,mem-path=/dev/shm/x";

    fn shared_with(args: &[&str], qemu: &Qemu, config: &str) -> Result<Vec<OsString>, MemoryError> {
        let args = args.iter().map(|arg| arg.into()).collect();
        let command = Some(Command { program: "qemu".into(), args });
        let file = ConfigFile { path: "f".into(), text: config.as_bytes().to_vec() };
        let request = Request { command, config_files: vec![file], ..Request::default() };
        shared(&request, &Id::default(), qemu, &mut Vec::new())
    }

    fn shared_for(args: &[&str]) -> Result<Vec<OsString>, MemoryError> {
        shared_with(args, &Qemu::default(), "")
    }

    #[test]
    fn the_backend_has_the_size_that_qemu_would_allocate() {
        for (args, bytes) in [
            (&[][..], 128u64 << 20),
            (&["-m", "256"], 256 << 20),
            (&["-m", "2G"], 2 << 30),
            (&["-m", "1.5G"], 3 << 29),
            (&["-m", "size=512M,slots=2,maxmem=4G"], 512 << 20),
            (&["-m", "slots=2,size=1g"], 1 << 30),
            (&["-m", "64", "-m", "128"], 128 << 20),
            (&["-m", "64", "-m", "slots=2,maxmem=1G"], 64 << 20),
            (&["-m", "512", "-append", "-m 2"], 512 << 20),
            (&["-append", "-m", "disk.img"], 128 << 20),
            (&["-m", "100k"], 104 << 10),
            (&["-m", "0"], 128 << 20),
            (&["-machine", "q35,memory.size=200M"], 200 << 20),
            (&["-m", "64", "-readconfig", "f"], 300 << 20),
            (
                &["-object", &format!("{OBJECT},share=on"), "-device", "ivshmem-plain,memdev=m"],
                128 << 20,
            ),
        ] {
            let got = shared_with(args, &Qemu::default(), "[memory]\nsize = \"300\"\n").unwrap();
            let wanted = format!("memory-backend-memfd,id=net0-mem,size={bytes},share=on");
            assert_eq!(got[1], OsString::from(wanted), "{args:?}");
        }
        let machine = Some(Machine { memory: Some(1 << 30), ..Machine::default() });
        let got =
            shared_with(&["-M", "raspi3b"], &Qemu { machine, ..Qemu::default() }, "").unwrap();
        assert!(got[1].to_str().unwrap().contains("size=1073741824,"), "{got:?}");
    }

    #[test]
    fn a_size_that_qemu_refuses_is_an_error() {
        for text in ["x", "12Q", "-5", "1.5", "0x100", "512,,", "99999999999999T"] {
            let reported = text.replace(",,", ",");
            assert_eq!(shared_for(&["-m", text]), Err(MemoryError::Size(reported)), "{text}");
        }
    }

    #[test]
    fn the_callers_main_memory_is_kept_if_it_is_shared() {
        let with = |share: &str| format!("{OBJECT}{share}");
        let main: &[&[&str]] = &[
            &["-machine", "memory-backend=m"],
            &["-M", "q35,memory-backend=m"],
            &["-numa", "node,nodeid=0,memdev=m"],
            &["-M", "q35", "-readconfig", "f"],
        ];
        let config = "[machine]\nmemory-backend = \"m\"\n";
        for (object, shared) in [
            (with(""), false),
            (with(",share=off"), false),
            (with(",share=on,share=off"), false),
            (with(",share=on"), true),
            (with(",share=true"), true),
            (with(",share=yes"), true),
            ("memory-backend-memfd,id=m,size=1G".to_owned(), true),
            ("memory-backend-memfd,id=m,size=1G,share=no".to_owned(), false),
            ("memory-backend-shm,id=m,size=1G".to_owned(), true),
            ("memory-backend-ram,id=m,size=1G".to_owned(), false),
            ("memory-backend-epc,id=m,size=1G".to_owned(), false),
            (r#"{"qom-type":"memory-backend-file","id":"m","share":true}"#.to_owned(), true),
            (r#"{"qom-type":"memory-backend-file","id":"m","share":false}"#.to_owned(), false),
            ("{'qom-type':'memory-backend-memfd','id':'m'}".to_owned(), true),
        ] {
            for main in main {
                let args = [&["-object", &object], *main].concat();
                match shared_with(&args, &Qemu::default(), config) {
                    Ok(added) => assert!(shared && added.is_empty(), "{args:?}: {added:?}"),
                    Err(MemoryError::Private(..)) => assert!(!shared, "{args:?}"),
                    Err(error) => panic!("{args:?}: {error}"),
                }
            }
        }
        let ram = ["-object", "memory-backend-ram,id=m,size=1G,share=on", "-M", "memory-backend=m"];
        assert!(matches!(shared_for(&ram), Err(MemoryError::Private(..))));
        let newer = Qemu { shared_ram: true, ..Qemu::default() };
        assert_eq!(shared_with(&ram, &newer, ""), Ok(Vec::new()));
    }

    #[test]
    fn other_private_guest_memory_is_refused() {
        let dimm = ["-object", OBJECT, "-device", "pc-dimm,memdev=m"];
        assert!(matches!(shared_for(&dimm), Err(MemoryError::Private(..))));
        assert_eq!(shared_for(&["-object", OBJECT]), Err(MemoryError::NotShared));
        let other = ["-object", OBJECT, "-device", "ivshmem-plain,memdev=m"];
        assert!(shared_for(&other).is_ok_and(|added| added.len() == 4));
        assert!(matches!(shared_for(&["-mem-path", "/x"]), Err(MemoryError::MemPath(_))));
        assert!(matches!(shared_for(&["-numa", "node"]), Err(MemoryError::Numa(_))));
        assert!(shared_for(&["-mem-prealloc"]).is_ok());
    }
}
