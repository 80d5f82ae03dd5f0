//! Reads the leases that a dnsmasq has given, from its lease file.
//!
//! dnsmasq writes the file again at each change: a line for each DHCPv4 lease, then a line with its
//! own DUID, then a line for each DHCPv6 lease. The fields of a line are the end of the lease, the
//! MAC address (IPv6: the IAID), the address, the name and the client identifier (IPv6: the DUID),
//! and `*` stands for a missing name or identifier (measured with dnsmasq 2.90).
//!
//! The file belongs to dnsmasq's user and contains names and identifiers that guests have sent. So
//! the reader follows no link, limits the size of the file and of each line, accepts each field
//! only in its grammar, and skips and counts all other lines.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{LARGEST_LEASES, dir_of, lease_file};
use crate::sys::dir::{self, Dir, Trust};
use crate::types::{HostName, Mac};

/// The maximum length of a line in bytes. The longest line of a DHCPv4 lease has a client
/// identifier of 255 bytes and a name of 253.
const LONGEST_LINE: usize = 1200;
/// The number of attempts at a consistent read, and the pause between them. dnsmasq writes the
/// whole file within milliseconds.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// A client identifier or a DUID: bytes that the client chose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(Vec<u8>);

impl ClientId {
    /// Parses pairs of hexadecimal digits with colons between them.
    fn parse(text: &str) -> Option<Self> {
        let byte = |pair: &str| {
            let digits = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16).ok().filter(|_| digits)
        };
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Option<_>>()?;
        (bytes.len() <= 255).then_some(ClientId(bytes))
    }

    /// Returns its bytes, in the order in which they are sent.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Returns the Ethernet address in a DUID of the types DUID-LLT and DUID-LL (RFC 8415, 11).
    pub fn mac(&self) -> Option<Mac> {
        duid_mac(&self.0)
    }
}

/// Returns the Ethernet address in the bytes of a DUID, if its type has one. A guest with several
/// cards uses the address of one of them for all.
pub(crate) fn duid_mac(duid: &[u8]) -> Option<Mac> {
    let octets = match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac,
        _ => return None,
    };
    mac(octets)
}

/// Returns the address of a network card from its bytes.
pub(crate) fn mac(octets: &[u8]) -> Option<Mac> {
    let octets: [u8; 6] = octets.try_into().ok()?;
    crate::types::EthernetAddress::new(octets).to_string().parse().ok()
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// The identity association of a DHCPv6 lease (RFC 8415, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Association {
    /// Its identifier, which the client chose for one of its cards.
    pub iaid: u32,
    /// Whether the address is a temporary one.
    pub temporary: bool,
}

/// An address that dnsmasq has given to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DhcpLease {
    /// The address.
    pub address: IpAddr,
    /// The MAC address of the guest's card; for DHCPv6 the one in its DUID, if there is one.
    pub mac: Option<Mac>,
    /// The name of the guest.
    pub name: Option<HostName>,
    /// The client identifier; for DHCPv6 the DUID.
    pub client: Option<ClientId>,
    /// The identity association; `None` for DHCPv4.
    pub association: Option<Association>,
    /// The end in seconds since 1970; `None` if the lease has no end.
    pub until: Option<u64>,
}

impl DhcpLease {
    /// Returns whether the lease has not ended at `now`, in seconds since 1970.
    pub fn is_active(&self, now: u64) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Parses a line. Returns `None` for a damaged line.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let mut field = || fields.next();
        let (until, card, address, name, client) =
            (field()?, field()?, field()?, field()?, field()?);
        if field().is_some() {
            return None;
        }
        let address: IpAddr = address.parse().ok()?;
        let until: u64 = number(until)?;
        let name = match name {
            "*" => None,
            name => Some(name.parse().ok()?),
        };
        let client = match client {
            "*" => None,
            client => Some(ClientId::parse(client)?),
        };
        let (mac, association) = match address {
            IpAddr::V4(_) => (hardware(card)?, None),
            IpAddr::V6(_) => {
                let (temporary, iaid) = match card.strip_prefix('T') {
                    Some(iaid) => (true, iaid),
                    None => (false, card),
                };
                let association = Association { iaid: number(iaid)?, temporary };
                (client.as_ref().and_then(ClientId::mac), Some(association))
            }
        };
        let until = Some(until).filter(|until| *until != 0);
        Some(DhcpLease { address, mac, name, client, association, until })
    }
}

/// Parses a hardware address. One that is not of Ethernet has its type in front, as in `20-` for
/// InfiniBand, and is not a [`Mac`].
fn hardware(text: &str) -> Option<Option<Mac>> {
    match text.split_once('-') {
        None => text.parse().ok().map(Some),
        Some((kind, rest)) => {
            let is_kind = kind.len() == 2 && kind.bytes().all(|b| b.is_ascii_hexdigit());
            (is_kind && (rest.is_empty() || ClientId::parse(rest).is_some())).then_some(None)
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The leases of a dnsmasq.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseFile {
    /// The leases, in the order of the file; some may have ended.
    pub leases: Vec<DhcpLease>,
    /// The number of damaged lines.
    pub damaged: usize,
}

impl LeaseFile {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut file = LeaseFile::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // The DUID of dnsmasq itself.
            if line.starts_with(b"duid ") {
                continue;
            }
            let text = (line.len() <= LONGEST_LINE).then(|| std::str::from_utf8(line).ok());
            match text.flatten().and_then(DhcpLease::parse) {
                Some(lease) => file.leases.push(lease),
                None => file.damaged += 1,
            }
        }
        file
    }

    /// Reads a lease file. A missing file has no leases.
    ///
    /// # Errors
    /// [`LeaseFileError`].
    pub fn read(path: &Path) -> Result<Self, LeaseFileError> {
        let failed = |source| LeaseFileError { path: path.to_owned(), source };
        let mut last = Vec::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            let (bytes, stable) = match open(path).map_err(failed)? {
                Some(file) => read(file).map_err(failed)?,
                None => return Ok(LeaseFile::default()),
            };
            last = bytes;
            if stable {
                break;
            }
        }
        Ok(LeaseFile::parse(&last))
    }
}

/// Opens the lease file of dnsmasq's user in its directory, without following a link.
fn open(path: &Path) -> io::Result<Option<File>> {
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let (above, name) = dir::split(dir_of(path))?;
    let open = || io::Result::Ok(Dir::open(above, Trust::LastDirectory)?.readable(name)?);
    let leases: OwnedFd = match open() {
        Err(error) if missing(&error) => return Ok(None),
        opened => opened?,
    };
    let name = path.file_name().unwrap_or_default();
    let name = CString::new(name.as_encoded_bytes()).map_err(io::Error::other)?;
    match lease_file(&leases, &name) {
        Err(error) if missing(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Reads the file. Also returns whether dnsmasq was not writing it at that moment.
fn read(mut file: File) -> io::Result<(Vec<u8>, bool)> {
    let before = file.metadata()?;
    let mut bytes = Vec::new();
    (&mut file).take(LARGEST_LEASES).read_to_end(&mut bytes)?;
    let after = file.metadata()?;
    let unchanged = before.modified()? == after.modified()? && before.len() == after.len();
    let whole = bytes.last().is_none_or(|last| *last == b'\n');
    Ok((bytes, unchanged && whole))
}

/// A lease file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the leases in {}; check the permissions of its directory", path.display())]
#[non_exhaustive]
pub struct LeaseFileError {
    /// The file.
    pub path: PathBuf,
    /// The kernel's error, or the reason why the file is not accepted.
    pub source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leases_of_both_versions_are_read_and_damaged_lines_are_counted() {
        let duid = "00:01:00:01:2f:aa:bb:cc:52:54:00:00:00:07";
        let text = format!(
            "1790000000 52:54:00:00:00:07 10.0.0.9 web 01:52:54:00:00:00:07\n\
             0 52:54:00:00:00:08 10.0.0.8 * *\n\
             1790000000 20-00:01:02 10.0.0.7 * *\n\
             duid 00:01:00:01:2f:aa:bb:cc:fe:54:00:00:00:01\n\
             1790000001 7 fd00::9 web {duid}\n\
             1790000002 T8 fd00::a * {duid}\n"
        );
        let LeaseFile { leases, damaged } = LeaseFile::parse(text.as_bytes());
        assert_eq!((leases.len(), damaged), (5, 0));
        let web: Mac = "52:54:00:00:00:07".parse().unwrap();
        assert_eq!((leases[0].mac, leases[0].until), (Some(web), Some(1_790_000_000)));
        assert_eq!(leases[0].name.as_ref().unwrap().as_str(), "web");
        assert_eq!(leases[0].client.as_ref().unwrap().to_string(), "01:52:54:00:00:00:07");
        assert_eq!((leases[1].until, &leases[1].name, &leases[1].client), (None, &None, &None));
        assert_eq!(leases[2].mac, None);
        assert_eq!(
            (leases[3].mac, leases[3].client.as_ref().unwrap().to_string()),
            (Some(web), duid.into())
        );
        let of = |lease: &DhcpLease| lease.association.map(|one| (one.iaid, one.temporary));
        assert_eq!(
            [of(&leases[0]), of(&leases[3]), of(&leases[4])],
            [None, Some((7, false)), Some((8, true))]
        );
    }

    #[test]
    fn a_damaged_line_is_skipped() {
        let good = "0 52:54:00:00:00:08 10.0.0.8 * *\n";
        let long = format!("0 52:54:00:00:00:08 10.0.0.8 {} *", "a".repeat(2000));
        for bad in [
            "x",
            "-1 52:54:00:00:00:08 10.0.0.8 * *",
            "0 52:54:00:00:00 10.0.0.8 * *",
            "0 01:54:00:00:00:08 10.0.0.8 * *",
            "0 52:54:00:00:00:08 10.0.0.800 * *",
            "0 52:54:00:00:00:08 10.0.0.8 a\u{1b}[2J *",
            "0 52:54:00:00:00:08 10.0.0.8 * zz",
            "0 52:54:00:00:00:08 10.0.0.8 * * more",
            "0 52:54:00:00:00:08 10.0.0.8 *",
            "0 x fd00::9 * 00:01",
            "0 4294967296 fd00::9 * 00:01",
            &long,
        ] {
            let text = format!("{good}{bad}\n{good}");
            let LeaseFile { leases, damaged } = LeaseFile::parse(text.as_bytes());
            assert_eq!((leases.len(), damaged), (2, 1), "{bad:?}");
        }
        let bytes = [good.as_bytes(), b"0 \xff\xfe\n"].concat();
        assert_eq!(LeaseFile::parse(&bytes).damaged, 1);
    }

    #[test]
    fn a_lease_file_that_is_a_link_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases/dnsmasq.leases");
        assert_eq!(LeaseFile::read(&path).unwrap(), LeaseFile::default());
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        assert_eq!(LeaseFile::read(&path).unwrap(), LeaseFile::default());
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "0 52:54:00:00:00:08 10.0.0.8 * *\n").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        LeaseFile::read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&secret, &path).unwrap();
        LeaseFile::read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "0 52:54:00:00:00:08 10.0.0.8 * *\n").unwrap();
        assert_eq!(LeaseFile::read(&path).unwrap().leases.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_leases_or_damaged_lines(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            line in "[0-9T]{0,4} [0-9a-f:-]{0,20} [0-9a-f.:]{0,12} [a-z*.]{0,4} [0-9a-f:*]{0,6}",
        ) {
            for bytes in [bytes.as_slice(), line.as_bytes()] {
                let lines = bytes.split(|byte| *byte == b'\n');
                let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"duid "));
                let LeaseFile { leases, damaged } = LeaseFile::parse(bytes);
                prop_assert_eq!(leases.len() + damaged, lines.count());
            }
        }
    }
}
