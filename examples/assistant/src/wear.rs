//! Faults that only show while a service is used for some time: owns how it gets slow, fails now and then, loses memory and
//! complains.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Json, Response};
use serde_json::json;

use crate::release::Settings;

/// How often memory is lost and complaints are written.
const TICK: Duration = Duration::from_millis(100);

/// What a request meets on its way.
pub(crate) struct Wear {
    slow: Duration,
    fail_every: u32,
    requests: AtomicU32,
}

impl Wear {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            slow: Duration::from_millis(settings.slow_ms),
            fail_every: settings.fail_every,
            requests: AtomicU32::new(0),
        }
    }
}

/// Delays requests to the API, and fails some of them.
pub(crate) async fn meet(State(wear): State<Arc<Wear>>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/api/") {
        tokio::time::sleep(wear.slow).await;
        let number = wear.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if wear.fail_every > 0 && number.is_multiple_of(wear.fail_every) {
            let why = json!({ "error": "the cache of notes is not consistent" });
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(why)).into_response();
        }
    }
    next.run(request).await
}

/// Loses memory and complains for as long as the service runs.
pub(crate) async fn go_on(settings: Settings) {
    let mut lost: Vec<Vec<u8>> = Vec::new();
    let mut said = 0u64;
    if settings.leak_mib_per_s == 0 && settings.complaints_per_s == 0 {
        return;
    }
    for tick in 1u64.. {
        tokio::time::sleep(TICK).await;
        if settings.leak_mib_per_s > 0 {
            // Written to, so that it is not only promised.
            lost.push(vec![1; settings.leak_mib_per_s * (1 << 20) / 10]);
        }
        while said < tick * settings.complaints_per_s / 10 {
            said += 1;
            let line = format!("ERROR reminder {said} was not sent: no such calendar");
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
    drop(lost);
}
