//! The entry of the library: a launcher with its request and settings, and the steps of a launch.

use std::io;
use std::sync::mpsc;

use nix::sys::signal::SigSet;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::blocking::BlockingLaunch;
use super::builder::LauncherBuilder;
use super::context::LaunchContext;
use super::environment::LaunchEnvironment;
use super::error::LaunchError;
use super::launch::Launch;
use super::launch_dir::LaunchRoot;
use super::launch_thread;
use super::launcher_settings::LauncherSettings;
use super::plan::{Plan, Request, plan};
use super::probe::Programs;
use super::qemu_files;
use super::running::Running;
use crate::types::facts::Facts;

/// Launches guests with one request.
///
/// ```no_run
/// use netlaunch::launcher::Launcher;
///
/// # async fn boot() -> Result<u8, netlaunch::launcher::LaunchError> {
/// let mut launch = Launcher::builder()
///     .qemu("qemu-system-x86_64", ["-m", "512", "disk.img"])
///     .publish("2222:22")
///     .from_env()
///     .launch()
///     .await?;
/// println!("{} on {:?}", launch.info().backend, launch.info().published);
/// Ok(launch.wait().await.code())
/// # }
/// ```
///
/// Each call of [`launch`](Self::launch) makes a launch of its own, so one launcher can start
/// several guests; published ports and a fixed MAC address then clash.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub(super) request: Request,
    pub(super) environment: LaunchEnvironment,
    pub(super) settings: LauncherSettings,
}

impl Launcher {
    /// Returns a builder with the defaults of [`Request::default`] and nothing from the
    /// environment.
    pub fn builder() -> LauncherBuilder {
        LauncherBuilder::new()
    }

    /// Probes the host and makes the plan of a launch; starts nothing.
    ///
    /// ```no_run
    /// # async fn show() -> Result<(), netlaunch::launcher::LaunchError> {
    /// use netlaunch::launcher::Launcher;
    ///
    /// let launcher = Launcher::builder().qemu("qemu-system-x86_64", ["disk.img"]).build()?;
    /// let plan = launcher.plan().await?;
    /// println!("{:#}", netlaunch::launcher::plan::json(&plan));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The future works in every asynchronous runtime; a thread of netlaunch does the work.
    ///
    /// # Errors
    /// [`LaunchError::Plan`], or [`LaunchError::Thread`] if that thread cannot be started.
    pub async fn plan(&self) -> Result<Plan, LaunchError> {
        let (sender, plan) = oneshot::channel();
        let launcher = self.clone();
        let send = move |plan| drop(sender.send(plan));
        launch_thread::run(move |_, runtime| launcher.plan_in(runtime, send))?;
        // The thread has panicked if it sends nothing.
        plan.await.unwrap_or_else(|gone| Err(LaunchError::Thread(io::Error::other(gone))))
    }

    /// Does the same as [`plan`](Self::plan) for a program without an asynchronous runtime.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan).
    pub fn plan_blocking(&self) -> Result<Plan, LaunchError> {
        let (sender, plan) = mpsc::channel();
        let launcher = self.clone();
        let send = move |plan| drop(sender.send(plan));
        launch_thread::run(move |_, runtime| launcher.plan_in(runtime, send))?;
        plan.recv().unwrap_or_else(|gone| Err(LaunchError::Thread(io::Error::other(gone))))
    }

    /// Makes the plan in a thread with this runtime.
    fn plan_in(self, runtime: io::Result<Runtime>, send: impl FnOnce(Result<Plan, LaunchError>)) {
        let planned = runtime.map_err(LaunchError::Thread).and_then(|runtime| {
            let context = self.context();
            let (request, facts) = runtime.block_on(self.probe());
            Ok(plan(&request, &facts, &context.launch_ids(&request)?)?)
        });
        send(planned);
    }

    /// Starts a launch and returns once passt serves and QEMU executes.
    ///
    /// The future works in every asynchronous runtime. A thread of netlaunch supervises the launch,
    /// and lives as long as it. Without QEMU (serve mode) the caller starts QEMU with the arguments
    /// in [`LaunchInfo::qemu_args`](super::LaunchInfo::qemu_args).
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left running then.
    ///
    /// # Cancellation
    /// Dropping the future before it is done ends everything that was started.
    pub async fn launch(&self) -> Result<Launch, LaunchError> {
        Launch::start(self.clone()).await
    }

    /// Starts a launch for a program without an asynchronous runtime, and returns once passt serves
    /// and QEMU executes. A thread of netlaunch supervises it.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left running then.
    pub fn launch_blocking(&self) -> Result<BlockingLaunch, LaunchError> {
        BlockingLaunch::start(self.clone())
    }

    /// Starts QEMU and passt, without a supervisor. `mask` is their signal mask, if not the calling
    /// thread's.
    pub(super) async fn start(&self, mask: Option<SigSet>) -> Result<Running, LaunchError> {
        let context = LaunchContext { mask, ..self.context() };
        let (request, facts) = self.probe().await;
        super::launch(&request, &facts, &context).await
    }

    /// Completes the request with the files that QEMU's options name, and probes the host for it.
    async fn probe(&self) -> (Request, Facts) {
        let mut request = self.request.clone();
        request.config_files = qemu_files::config_files(&request);
        let mut prober = self.environment.prober();
        if !self.settings.from_env || self.settings.cache_dir.is_some() {
            prober.cache_dir = self.settings.cache_dir.clone();
        }
        let machine = qemu_files::machine(&request);
        let facts = prober
            .facts_of(Programs {
                qemu: request.command.as_ref().map(|command| command.program.as_os_str()),
                emulator: self.settings.emulator.as_deref(),
                passt: self.settings.passt.as_deref(),
                machine: machine.as_ref(),
            })
            .await;
        (request, facts)
    }

    fn context(&self) -> LaunchContext {
        let root = match &self.settings.state_dir {
            Some(dir) => LaunchRoot { dir: dir.clone(), shared_parent: false, own: false },
            None => self.environment.launch_root(),
        };
        let mut context = LaunchContext::new(root);
        context.env = self.environment.for_children();
        for (name, value) in &self.settings.env {
            context.env.retain(|(present, _)| present != name);
            context.env.push((name.clone(), value.clone()));
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::LaunchErrorKind;
    use crate::types::{HostAddress, Publish};
    use std::path::PathBuf;

    fn assert_send<T: Send>(_: &T) {}
    fn assert_sync<T: Sync>() {}

    #[test]
    fn every_future_can_move_to_another_thread() {
        let launcher = Launcher::builder().build().unwrap();
        assert_send(&launcher.launch());
        assert_send(&launcher.plan());
        assert_send(&Launcher::builder().launch());
        fn of_a_launch(mut launch: Launch) {
            assert_send(&launch);
            assert_send(&launch.wait());
            assert_send(&launch.stop());
            assert_send(&launch.kill());
            assert_send(&launch.next_event());
        }
        let _ = of_a_launch;
        assert_sync::<Launcher>();
        assert_sync::<BlockingLaunch>();
    }

    #[test]
    fn the_first_value_that_is_not_valid_is_the_error() {
        let builder = Launcher::builder().publish("80:http").mac("no");
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), LaunchErrorKind::InvalidRequest);
        assert_eq!(error.to_string(), "the published port is not valid");
        let typed: Publish = "80".parse().unwrap();
        assert!(Launcher::builder().publish(typed).build().is_ok());
        let address: HostAddress = "192.168.7.2/24".parse().unwrap();
        assert!(Launcher::builder().address(address).address("host").build().is_ok());
    }

    #[test]
    fn a_value_that_no_launch_can_have_is_refused_by_its_name() {
        let builder = Launcher::builder;
        for (builder, what) in [
            (builder().env("A=B", "c"), "environment variable"),
            (builder().env("", "c"), "environment variable"),
            (builder().env("A", "c\0d"), "environment variable"),
            (builder().qemu("", ["-S"]), "QEMU program"),
            (builder().state_dir(""), "state directory"),
            (builder().state_dir("run"), "state directory"),
            (builder().cache_dir("cache"), "cache directory"),
            (builder().qemu("q\0", ["-S"]), "QEMU program"),
            (builder().qemu("q", ["-S", "a\0b"]), "QEMU argument"),
            (builder().nic("bridge=br0"), "NIC"),
            (builder().nic("slirp").nic("network=default"), "NIC"),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), LaunchErrorKind::InvalidRequest, "{what}");
            assert_eq!(error.to_string(), format!("the {what} is not valid"));
        }
    }

    #[test]
    fn a_request_that_contradicts_itself_is_refused_before_anything_is_probed() {
        let error = Launcher::builder().publish("80:80").publish("80:81").build().unwrap_err();
        assert_eq!(error.kind(), LaunchErrorKind::InvalidRequest);
    }

    #[test]
    fn without_from_env_nothing_is_read_from_the_environment() {
        let launcher = Launcher::builder().env("A", "b").build().unwrap();
        // Only a read of the environment sets another directory.
        assert_eq!(launcher.environment.current_dir, PathBuf::from("/"));
        assert_eq!(launcher.context().env, [("A".into(), "b".into())]);
        assert_eq!(launcher.environment.prober().path, ["/usr/bin", "/bin"].map(PathBuf::from));
        let launcher = Launcher::builder().from_env().env("PATH", "/only").build().unwrap();
        let context = launcher.context();
        let paths: Vec<_> = context.env.iter().filter(|(name, _)| name == "PATH").collect();
        assert_eq!(paths, [&("PATH".into(), "/only".into())]);
    }
}
