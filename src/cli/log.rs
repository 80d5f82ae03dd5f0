//! Messages on standard error: short lines for people, or one JSON object a line for programs.
//!
//! Text has no time stamps and no color, because a journal adds its own time and a guest's console
//! may be in the same terminal. One message is one line and one write. Control characters, which
//! may come from the output of another program, are escaped.
//!
//! A message that cannot be written is dropped: netlaunch must supervise the guest even if the
//! reader of its standard error has ended.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::args::LogFormat;
use super::hint::with_words;
use super::launch_log::LaunchLog;
use crate::types::printable::{self, printable, shortened, steers};

/// The target of the events of a launch, which are for programs. JSON has them at the level info,
/// text only with `-v`, because the text messages already have the same content.
const EVENT: &str = "netlaunch::event";

/// The format and the amount of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Text or JSON.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: Level,
}

/// Sends the messages of this process to standard error, and those of the level debug to the log of
/// a launch, if it keeps some. Only the first call has an effect.
pub fn init(settings: Settings, launch_log: &LaunchLog) {
    let log = Log { settings, out: Mutex::new(io::stderr()), launch_log: launch_log.clone() };
    // An error means that an earlier call has set the destination.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
}

/// Returns a subscriber that writes messages to `out`.
pub fn subscriber<W: Write + Send + 'static>(
    settings: Settings,
    out: W,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::registry().with(Log {
        settings,
        out: Mutex::new(out),
        launch_log: LaunchLog::default(),
    })
}

struct Log<W> {
    settings: Settings,
    out: Mutex<W>,
    launch_log: LaunchLog,
}

impl<W> Log<W> {
    /// Returns whether an event is written. The events of other crates are written only at the
    /// level trace.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let own = is_own(metadata);
        self.level(metadata) <= self.settings.level && (own || self.settings.level == Level::TRACE)
    }

    /// Returns whether the log of the launch gets an event.
    fn keeps(&self, metadata: &Metadata<'_>) -> bool {
        self.launch_log.keeps() && *metadata.level() <= Level::DEBUG && is_own(metadata)
    }

    /// Returns the level at which an event is written.
    fn level(&self, metadata: &Metadata<'_>) -> Level {
        match (metadata.target(), self.settings.format) {
            (EVENT, LogFormat::Text) => Level::DEBUG,
            _ => *metadata.level(),
        }
    }
}

impl<S: Subscriber, W: Write + Send + 'static> Layer<S> for Log<W> {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata) || self.keeps(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let kept = if self.launch_log.keeps() { Level::DEBUG } else { Level::ERROR };
        Some(LevelFilter::from_level(self.settings.level.max(kept)))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = self.level(event.metadata());
        if self.keeps(event.metadata()) {
            self.launch_log.append(&now(), &parts.text(level));
        }
        if !self.wants(event.metadata()) {
            return;
        }
        let line = match self.settings.format {
            LogFormat::Text => parts.text(level),
            LogFormat::Json => parts.json(level, &now()),
        };
        let mut out = self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // If the reader of the messages has ended, the launch goes on.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Returns whether netlaunch has an event, and not another crate.
fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "netlaunch" || metadata.target().starts_with("netlaunch::")
}

/// Returns the time as RFC 3339, UTC.
pub(super) fn now() -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The parts of an event: its message, and its fields in order.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Parts {
    fn text(&self, level: Level) -> String {
        let mut line = String::from("netlaunch: ");
        if level != Level::INFO {
            line.push_str(level_name(level));
            line.push_str(": ");
        }
        line.push_str(&printable(&shortened(&self.message)));
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                other => Cow::Owned(other.to_string()),
            };
            let value = shortened(&value);
            let plain = !value.is_empty()
                && !value.contains(|c: char| steers(c) || c.is_whitespace() || c == '"');
            // Writing to a String cannot fail.
            let _ = if plain {
                write!(line, " {name}={value}")
            } else {
                write!(line, " {name}={value:?}")
            };
        }
        line.push('\n');
        line
    }

    fn json(self, level: Level, time: &str) -> String {
        let fields: Map<String, Value> =
            self.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let object = json!({
            "timestamp": time,
            "level": level_name(level),
            "message": shortened(&self.message),
            "fields": fields,
        });
        let mut line = printable::json(&object, false);
        line.push('\n');
        line
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = with_words(text),
            ("message", value) => self.message = with_words(value.to_string()),
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn capture(format: LogFormat, level: Level, events: impl FnOnce()) -> String {
        let out = Shared::default();
        let subscriber = subscriber(Settings { format, level }, out.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn samples() {
        tracing::error!(status = 1, "passt failed");
        tracing::warn!("slirp is used: {}", "passt is missing");
        tracing::info!(guest = %"10.0.2.15/24", words = "no route", empty = "", "ready");
        tracing::debug!(ok = true, path = ?std::path::Path::new("/a b"), "said\nso");
        tracing::info!(target: "other_crate", "not ours");
    }

    #[test]
    fn text_lines() {
        assert_eq!(
            capture(LogFormat::Text, Level::DEBUG, samples),
            concat!(
                "netlaunch: error: passt failed status=1\n",
                "netlaunch: warning: slirp is used: passt is missing\n",
                "netlaunch: ready guest=10.0.2.15/24 words=\"no route\" empty=\"\"\n",
                "netlaunch: debug: said\\nso ok=true path=\"\\\"/a b\\\"\"\n",
            )
        );
    }

    #[test]
    fn levels() {
        for (level, lines) in [(Level::ERROR, 1), (Level::INFO, 3), (Level::TRACE, 5)] {
            assert_eq!(capture(LogFormat::Text, level, samples).lines().count(), lines);
        }
    }

    #[test]
    fn json_lines() {
        let text = capture(LogFormat::Json, Level::INFO, samples);
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["level"], "error");
        assert_eq!(lines[0]["message"], "passt failed");
        assert_eq!(lines[0]["fields"], json!({"status": 1}));
        assert_eq!(lines[2]["fields"]["guest"], "10.0.2.15/24");
        let time = lines[0]["timestamp"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn an_event_is_for_programs_and_for_text_with_v() {
        let event = || tracing::info!(target: EVENT, event = "exit", status = 3, "ended");
        assert_eq!(capture(LogFormat::Text, Level::INFO, event), "");
        let line = "netlaunch: debug: ended event=exit status=3\n";
        assert_eq!(capture(LogFormat::Text, Level::DEBUG, event), line);
        let line: Value =
            serde_json::from_str(&capture(LogFormat::Json, Level::INFO, event)).unwrap();
        assert_eq!(line["fields"], json!({"event": "exit", "status": 3}));
        assert_eq!(line["level"], "info");
        assert_eq!(capture(LogFormat::Json, Level::ERROR, event), "");
    }

    #[test]
    fn a_writer_that_fails_is_ignored() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let settings = Settings { format: LogFormat::Text, level: Level::INFO };
        tracing::subscriber::with_default(subscriber(settings, Broken), samples);
    }

    #[test]
    fn the_log_of_a_launch_has_the_messages_of_debug_also_without_v() {
        let dir = tempfile::tempdir().unwrap();
        let launch_log = LaunchLog::waiting();
        launch_log.open(dir.path());
        let out = Shared::default();
        let settings = Settings { format: LogFormat::Json, level: Level::ERROR };
        let log = Log { settings, out: Mutex::new(out.clone()), launch_log };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), samples);
        let text = std::fs::read_to_string(dir.path().join("netlaunch.log")).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("Z netlaunch: debug: said"), "{text}");
        assert_eq!(out.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let long = "x".repeat(1 << 20);
        let events = || tracing::warn!(long, "\x1b]0;{long}\n");
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = capture(format, Level::INFO, events);
            assert!(!line.trim_end_matches('\n').contains(steers), "{line}");
        }
        let line = capture(LogFormat::Text, Level::INFO, events);
        assert!(line.chars().count() < 300, "{line}");
    }
}
