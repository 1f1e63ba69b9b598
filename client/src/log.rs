//! The log of the module: a minimal `tracing` subscriber for `Hatoki: LogLevel` and `LogPath`.
//!
//! A line is `2026-11-22T02:00:00.000Z WARN ha: text key=value trace=00c0ffee00c0ffee`, with a trace within calls ([`spec::trace`]), written by one `write` where
//! `outlet.rs` says, so that processes and forked children never mix their lines. Secrets never come here: callers log names,
//! numbers and lengths.
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};

use arc_swap::ArcSwapOption;
use spec::platform::Platform;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::calendar::Iso;
use crate::conf::{Hatoki, LogLevel};
use crate::outlet::{Identity, LogFile, Outlet};

struct Sink {
    life: u64,
    level: Level,
    outlet: Outlet,
    platform: Arc<dyn Platform>,
}

static SINK: ArcSwapOption<Sink> = ArcSwapOption::const_empty();

/// Standard error as it was at C_Initialize.
static STANDARD_ERROR: ArcSwapOption<Identity> = ArcSwapOption::const_empty();

/// How many lives have begun to log: a C_Finalize that takes its time must not end the log of the life after it.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// Whether a life has ever asked for the lines that each call writes. Until then they are passed over without a look at the sink.
static DEBUGS: AtomicBool = AtomicBool::new(false);

/// The life that logs now.
pub(crate) fn life() -> u64 {
    LIVES.load(Ordering::Acquire)
}

/// Logs from now on as the configuration says: a life begins.
pub(crate) fn begin(platform: &Arc<dyn Platform>, settings: &Hatoki) {
    LIVES.fetch_add(1, Ordering::AcqRel);
    STANDARD_ERROR.store(Identity::of_standard_error().map(Arc::new));
    change(platform, settings);
}

/// Logs from now on as another configuration says.
pub(crate) fn change(platform: &Arc<dyn Platform>, settings: &Hatoki) {
    let Some(level) = level(settings.log_level) else {
        SINK.store(None);
        return;
    };
    let (file, refused) = match settings.log_path.as_ref().map(|path| LogFile::open(path)) {
        None => (None, None),
        Some(Ok(file)) => (Some(file), None),
        Some(Err(error)) => (None, Some(error)),
    };
    install(platform, level, file);
    if let (Some(error), Some(path)) = (refused, &settings.log_path) {
        tracing::error!(
            "LogPath: wanted to append to {}, found: {error}; the log goes to standard error",
            path.display()
        );
    }
}

/// Logs one fault of a configuration that could not be taken over, to standard error (RULES 2.13).
pub(crate) fn fault(platform: &Arc<dyn Platform>, text: &str) {
    LIVES.fetch_add(1, Ordering::AcqRel);
    STANDARD_ERROR.store(Identity::of_standard_error().map(Arc::new));
    install(platform, Level::ERROR, None);
    tracing::error!("{text}");
    end(life());
}

/// A life logs no more; a later one that has begun meanwhile does.
pub(crate) fn end(life: u64) {
    SINK.rcu(|sink| sink.clone().filter(|sink| sink.life > life));
}

fn install(platform: &Arc<dyn Platform>, level: Level, file: Option<LogFile>) {
    static ONCE: Once = Once::new();
    let stderr = STANDARD_ERROR.load().as_deref().copied();
    let outlet = file.map_or(Outlet::StandardError(stderr), Outlet::File);
    SINK.store(Some(Arc::new(Sink { life: life(), level, outlet, platform: platform.clone() })));
    let more = level >= Level::DEBUG && !DEBUGS.swap(true, Ordering::AcqRel);
    ONCE.call_once(|| {
        // Refused only where a test or tool has its own subscriber: then that one shows the events.
        let _ = tracing::subscriber::set_global_default(Writer);
    });
    if more {
        tracing::callsite::rebuild_interest_cache();
    }
}

fn level(level: LogLevel) -> Option<Level> {
    match level {
        LogLevel::Off => None,
        LogLevel::Error => Some(Level::ERROR),
        LogLevel::Warn => Some(Level::WARN),
        LogLevel::Info => Some(Level::INFO),
        LogLevel::Debug => Some(Level::DEBUG),
    }
}

struct Writer;

impl Subscriber for Writer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if DEBUGS.load(Ordering::Acquire) { LevelFilter::DEBUG } else { LevelFilter::INFO })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && SINK.load().as_ref().is_some_and(|sink| *metadata.level() <= sink.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(sink) = SINK.load_full() else { return };
        sink.outlet.write(line(sink.platform.wall_ms(), event).as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(wall_ms: u64, event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let area = metadata.target().split("::").next().unwrap_or_default();
    let mut fields = Fields::default();
    event.record(&mut fields);
    let text = fields.text.replace(['\n', '\r'], " ");
    if let Some(number) = spec::trace::current() {
        write!(fields.rest, " trace={number:016x}").expect("a String takes what is written");
    }
    format!(
        "{} {} {area}: {text}{}\n",
        Iso(wall_ms),
        metadata.level(),
        fields.rest.replace(['\n', '\r'], " ")
    )
}

#[derive(Default)]
struct Fields {
    text: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.text, "{value:?}")
        } else {
            write!(self.rest, " {}={value:?}", field.name())
        };
        written.expect("a String takes what is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_level_area_text_and_fields_and_lower_levels_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder for the log");
        let path = folder.path().join("hatoki.log");
        let text = format!("Hatoki = {{ LogLevel = warn; LogPath = {}; }}", path.display());
        let conf = crate::conf::Configuration::from_bytes(
            text.as_bytes(),
            std::path::Path::new("/x/Chrystoki.conf"),
        );
        let platform: Arc<dyn Platform> = Arc::new(ntls::platform::System);
        let conf = conf.expect("a right configuration");
        begin(&platform, &conf.hatoki);
        tracing::info!("not shown");
        tracing::warn!(member = 7, "gone\nfor now");
        let traces = spec::trace::Traces::new();
        traces.seed(0xabc);
        let call = traces.enter();
        tracing::warn!("within a call");
        drop(call);
        let first = life();
        begin(&platform, &conf.hatoki);
        end(first);
        tracing::warn!("a later life");
        end(life());
        tracing::error!("after the end");
        let louder = Hatoki { log_level: LogLevel::Debug, ..conf.hatoki.clone() };
        change(&platform, &louder);
        tracing::debug!("each call");
        begin(&platform, &conf.hatoki);
        tracing::debug!("not shown any more");
        end(life());
        let written = std::fs::read_to_string(&path).expect("the log was written");
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 4, "{written}");
        assert!(lines[3].ends_with("Z DEBUG client: each call"), "{written}");
        assert!(lines[2].ends_with("Z WARN client: a later life"), "{written}");
        assert!(lines[0].ends_with("Z WARN client: gone for now member=7"), "{written}");
        assert!(lines[1].ends_with("Z WARN client: within a call trace=0000000000000abc"), "{written}");
    }
}
