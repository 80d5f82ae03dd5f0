//! A network namespace of a test, with the interfaces that it needs.

use super::ruleset::without_marks;
use super::*;

/// A network namespace with a default route, from which passt takes its addresses.
pub struct Netns {
    pub name: String,
}

impl Netns {
    /// A namespace with loopback and a default route over a veth pair; both ends are inside.
    pub fn routed() -> Self {
        let netns = Netns::bare();
        netns.ip("link add up0 type veth peer name up1");
        netns.ip("link set up0 up");
        netns.ip("link set up1 up");
        netns.ip("address add 192.0.2.2/24 dev up0");
        netns.ip("route add default via 192.0.2.1 dev up0");
        netns
    }

    /// A namespace with loopback only.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nltest-{}-{n}", std::process::id());
        let netns = Netns { name };
        assert!(run("ip", &["netns", "add", &netns.name]).status.success());
        netns.ip("link set lo up");
        netns
    }

    /// Returns whether this kernel has bridges that filter VLANs. Only root can find out.
    pub fn filters_vlans() -> bool {
        let netns = Netns::bare();
        let add = ["-n", &netns.name, "link", "add", "br0", "type", "bridge"];
        run("ip", &[&add[..], &["vlan_filtering", "1"]].concat()).status.success()
    }

    /// Gives the namespace's programs a resolv.conf(5) of their own, with this server in it.
    pub fn resolver(&self, server: std::net::Ipv4Addr) {
        self.resolv_conf(&format!("nameserver {server}\n"));
    }

    /// The same with any text; programs that run already see it, too.
    pub fn resolv_conf(&self, text: &str) {
        let dir = self.etc();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("resolv.conf"), text).unwrap();
    }

    /// The files that `ip netns exec` puts over /etc (ip-netns(8)).
    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &str) {
        let mut argv = vec!["-n", &self.name];
        argv.extend(args.split(' '));
        let output = run("ip", &argv);
        assert!(output.status.success(), "ip {args}: {}", text(&output.stderr));
    }

    /// Runs `work` in a thread inside the namespace: the sockets it makes belong there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let work = || {
                nix::sched::setns(handle.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(work).join().unwrap()
        })
    }

    /// Serves `body` over HTTP to each client of `port` of the namespace's loopback, for
    /// as long as the test runs.
    pub fn serve_http(&self, port: u16, body: &'static str) {
        self.serve_http_at(([127, 0, 0, 1], port).into(), body);
    }

    /// The same at any address of the namespace; returns the clients that have connected so far.
    pub fn serve_http_at(&self, at: SocketAddr, body: &'static str) -> Arc<Mutex<Vec<IpAddr>>> {
        let listener = self.inside(|| TcpListener::bind(at).unwrap());
        let callers: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
        let seen = callers.clone();
        thread::spawn(move || {
            while let Ok((stream, caller)) = listener.accept() {
                seen.lock().unwrap().push(caller.ip());
                thread::spawn(move || answer(stream, body));
            }
        });
        callers
    }

    /// Returns the output of a program inside.
    pub fn says(&self, program: &str, args: &[&str]) -> String {
        let mut argv = vec!["netns", "exec", &self.name, program];
        argv.extend_from_slice(args);
        without_marks(&text(&run("ip", &argv).stdout))
    }

    /// Runs a shell script inside, which succeeds, and returns its output without the marks of nft
    /// transactions.
    pub fn sh(&self, script: &str) -> String {
        let output = run("ip", &["netns", "exec", &self.name, "sh", "-ec", script]);
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        without_marks(&text(&output.stdout))
    }

    /// A wire to another namespace: an interface `mine` here, and `theirs` there, both on.
    pub fn wire(&self, mine: &str, other: &Netns, theirs: &str) {
        self.ip(&format!("link add {mine} type veth peer name {theirs} netns {}", other.name));
        self.ip(&format!("link set {mine} up"));
        other.ip(&format!("link set {theirs} up"));
    }

    /// Connects to a port of the namespace's loopback, sends a line and returns what comes back;
    /// tries until `limit`, because the guest's server may not be there yet.
    pub fn ask_tcp(&self, port: u16, limit: Duration) -> String {
        self.inside(|| {
            let end = Instant::now() + limit;
            let mut got = String::new();
            while got.is_empty() && Instant::now() < end {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                    use std::io::Write;
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                    let _ = stream.write_all(b"hello\n");
                    let mut bytes = [0u8; 256];
                    if let Ok(n) = stream.read(&mut bytes) {
                        got = text(&bytes[..n]);
                    }
                }
                thread::sleep(Duration::from_millis(100));
            }
            got
        })
    }

    /// The same with datagrams.
    pub fn ask_udp(&self, port: u16, limit: Duration) -> String {
        self.inside(|| {
            let end = Instant::now() + limit;
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut bytes = [0u8; 256];
            while Instant::now() < end {
                let _ = socket.send_to(b"hello\n", ("127.0.0.1", port));
                if let Ok(n) = socket.recv(&mut bytes) {
                    return text(&bytes[..n]);
                }
                thread::sleep(Duration::from_millis(100));
            }
            String::new()
        })
    }
}

fn answer(mut stream: TcpStream, body: &str) {
    use std::io::Write;
    let mut request = [0u8; 2048];
    let _ = stream.read(&mut request);
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    // The guest's side closes first, or never: see the half-close bug in the man page.
    thread::sleep(Duration::from_millis(500));
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "delete", &self.name]);
        let _ = fs::remove_dir_all(self.etc());
        let _ = fs::remove_dir("/etc/netns"); // when it was the last one's
    }
}
