//! Programs that use the library boot a guest: on a multi-threaded runtime inside a spawned task,
//! from a blocking thread of that runtime, and without a runtime.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{AT_MOST, Guest, wait_until};
use netlaunch::launcher::{LaunchErrorKind, LaunchEvent, LaunchInfo, Launcher, LauncherBuilder};

/// How long a guest may take for anything.
const LIMIT: Duration = Duration::from_secs(90);
/// The guest answers connections until its supervisor ends it.
const SERVES: &str = "serve_tcp 80 answer; read never";
/// The guest ends by itself, with the exit status 33.
const ENDS: &str = "exit_qemu 33";

/// A launcher of the test guest whose console is a file, with launch directories in `dir`.
fn launcher(guest: &Guest, script: &str, dir: &Path) -> LauncherBuilder {
    let mut argv = guest.qemu(script);
    let serial = argv.iter().position(|word| word == "stdio").unwrap();
    argv[serial] = format!("file:{}", dir.join("console").display());
    let (program, args) = argv.split_first().unwrap();
    Launcher::builder().qemu(program, args).from_env().state_dir(dir.join("state"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks the guest at the first published port until it answers.
fn answers(info: &LaunchInfo) -> bool {
    let port = info.published.first().unwrap().host.first();
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Debian 12's passt shows the guest a connection only with its first bytes.
        stream.write_all(b"?")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    wait_until(LIMIT, || answer().is_ok_and(|text| text.starts_with("answer")))
}

fn runs(pid: Option<u32>) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.unwrap())).unwrap_or_default();
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), None | Some('Z'))
}

fn nothing_left(info: &LaunchInfo) {
    assert!(!info.dir.exists(), "{}", info.dir.display());
    assert!(!runs(info.qemu_pid), "QEMU");
    assert!(info.passt_pid.is_none_or(|pid| !runs(Some(pid))), "passt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_task_boots_a_guest_and_ends_it() {
    let Some(guest) = Guest::find("a_spawned_task_boots_a_guest_and_ends_it") else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let builder = launcher(&guest, SERVES, dir.path()).publish(&*format!("{port}:80"));
    let (info, code, events) = tokio::spawn(async move {
        let mut launch = builder.name("library").launch().await.unwrap();
        let info = launch.info().clone();
        assert_eq!((info.name.as_str(), info.published[0].host.first()), ("library", port));
        assert_eq!(info.address.unwrap().address().octets(), [10, 0, 2, 15]);
        let of_launch = info.clone();
        assert!(tokio::task::spawn_blocking(move || answers(&of_launch)).await.unwrap());
        let outcome = launch.stop().await;
        assert_eq!(outcome.left, [] as [String; 0]);
        assert_eq!(launch.wait().await, outcome, "asking again gives the same");
        let mut events = Vec::new();
        while let Some(event) = launch.next_event().await {
            events.push(event);
        }
        (info, outcome.code(), events)
    })
    .await
    .unwrap();
    // QEMU ends on SIGTERM with status 0.
    assert_eq!(code, 0);
    assert!(matches!(events.first(), Some(LaunchEvent::Started { .. })), "{events:?}");
    assert!(matches!(events.last(), Some(LaunchEvent::Ended(_))), "{events:?}");
    nothing_left(&info);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_launch_ends_it_without_blocking() {
    let Some(guest) = Guest::find("dropping_a_launch_ends_it_without_blocking") else { return };
    let dir = tempfile::tempdir().unwrap();
    let launch = launcher(&guest, SERVES, dir.path()).launch().await.unwrap();
    let info = launch.info().clone();
    assert!(runs(info.qemu_pid));
    let begun = Instant::now();
    drop(launch);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    let gone = || !runs(info.qemu_pid) && !info.dir.exists();
    assert!(tokio::task::block_in_place(|| wait_until(Duration::from_secs(20), gone)));
    nothing_left(&info);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_thread_of_a_runtime_boots_a_guest() {
    let Some(guest) = Guest::find("a_blocking_thread_of_a_runtime_boots_a_guest") else { return };
    let dir = tempfile::tempdir().unwrap();
    let builder = launcher(&guest, ENDS, dir.path());
    let code = tokio::task::spawn_blocking(move || {
        let handle = tokio::runtime::Handle::current();
        handle.block_on(async { builder.launch().await.unwrap().wait().await.code() })
    });
    assert_eq!(code.await.unwrap(), 33);
}

#[test]
fn a_program_without_a_runtime_boots_a_guest() {
    let Some(guest) = Guest::find("a_program_without_a_runtime_boots_a_guest") else { return };
    let dir = tempfile::tempdir().unwrap();
    let launch = launcher(&guest, ENDS, dir.path()).launch_blocking().unwrap();
    assert_eq!(launch.wait().code(), 33);
    let events: Vec<_> = std::iter::from_fn(|| launch.next_event()).collect();
    assert!(matches!(events.first(), Some(LaunchEvent::Started { .. })), "{events:?}");
    assert!(matches!(events.last(), Some(LaunchEvent::Ended(_))), "{events:?}");
    nothing_left(launch.info());

    let launch = launcher(&guest, SERVES, dir.path()).launch_blocking().unwrap();
    assert!(launch.wait_timeout(Duration::from_millis(100)).is_none());
    let info = launch.info().clone();
    let control = launch.control();
    std::thread::scope(|scope| {
        scope.spawn(|| control.kill());
        assert_eq!(launch.wait().code(), 137);
    });
    nothing_left(&info);

    let launch = launcher(&guest, SERVES, dir.path()).launch_blocking().unwrap();
    let info = launch.info().clone();
    drop(launch);
    nothing_left(&info);
}

#[test]
fn a_launch_that_fails_says_what_kind_of_failure_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || {
        let builder = Launcher::builder().qemu("/nonexistent/qemu", ["-version"]);
        builder.state_dir(dir.path())
    };
    let error = builder().launch_blocking().unwrap_err();
    assert_eq!(error.kind(), LaunchErrorKind::QemuNotFound, "{error}");
    let error = block_on(builder().launch()).unwrap_err();
    assert_eq!(error.kind(), LaunchErrorKind::QemuNotFound, "{error}");
}

/// Wakes a thread.
struct Waker(std::thread::Thread);

impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future in this thread, without a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let waker = Arc::new(Waker(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => std::thread::park_timeout(LIMIT),
        }
    }
}

#[test]
fn futures_need_no_runtime_of_tokio() {
    let Some(guest) = Guest::find("futures_need_no_runtime_of_tokio") else { return };
    let dir = tempfile::tempdir().unwrap();
    let launcher = launcher(&guest, ENDS, dir.path()).build().unwrap();
    let plan = block_on(launcher.plan()).unwrap();
    let again = launcher.plan_blocking().unwrap();
    assert_eq!(plan.qemu.program, again.qemu.program);
    block_on(async {
        let mut launch = launcher.launch().await.unwrap();
        assert_eq!(launch.wait().await.code(), 33);
        let mut last = None;
        while let Some(event) = launch.next_event().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(LaunchEvent::Ended(_))), "{last:?}");
        nothing_left(launch.info());
    });
}

#[test]
fn a_dropped_launch_ends_though_nothing_drives_a_runtime() {
    let name = "a_dropped_launch_ends_though_nothing_drives_a_runtime";
    let Some(guest) = Guest::find(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    // Neither I/O nor time is enabled.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let launch = runtime.block_on(launcher(&guest, SERVES, dir.path()).launch()).unwrap();
    let info = launch.info().clone();
    assert!(runs(info.qemu_pid));
    drop(launch);
    nothing_left(&info);

    // A runtime that ends waits for the launches that were dropped in it.
    let info = runtime.block_on(async {
        let launch = launcher(&guest, SERVES, dir.path()).launch().await.unwrap();
        launch.info().clone()
    });
    drop(runtime);
    nothing_left(&info);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();

    // A launch whose start is not waited for is undone.
    let state = dir.path().join("state");
    let start = launcher(&guest, SERVES, dir.path()).launch();
    runtime.block_on(async {
        tokio::select! {
            biased;
            started = start => panic!("{started:?}"),
            () = async {} => {}
        }
    });
    let empty = || {
        std::fs::read_dir(&state).map_or(true, |mut entries| {
            !entries
                .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("launch-"))
        })
    };
    assert!(wait_until(AT_MOST, empty));
}
