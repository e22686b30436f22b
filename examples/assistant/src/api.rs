//! Owns the HTTP interface: addresses, JSON shapes, the token and the access log.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::multipart::MultipartError;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Multipart, Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{delete, get};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::files;
use crate::pool::{Exhausted, Lease, Pool};
use crate::release::{Feature, Manifest};
use crate::schema;
use crate::store::{self, NoteChange};
use crate::wear;

/// The largest upload, in bytes: it is held in memory once.
const UPLOAD_MAX_BYTES: usize = 64 << 20;

/// How many rows a list has unless `?limit` says otherwise, and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// The longest title, in characters.
const TITLE_MAX_CHARS: usize = 500;

/// Everything that requests share.
pub(crate) struct App {
    pub manifest: Manifest,
    pub pool: Arc<Pool>,
    pub uploads: PathBuf,
    /// The digest of the token that clients must show, when there is one.
    pub token: Option<blake3::Hash>,
    pub index_html: String,
    pub style_css: String,
}

type Shared = State<Arc<App>>;
type Answer = Result<Response, ApiError>;

/// An answer that is no success.
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            // Nobody is left to tell when the log cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {}", self.message);
        }
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(e: rusqlite::Error) -> Self {
        Self::internal(format!("database: {e}"))
    }
}

impl From<Exhausted> for ApiError {
    fn from(_: Exhausted) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "connection pool exhausted")
    }
}

impl From<JsonRejection> for ApiError {
    fn from(e: JsonRejection) -> Self {
        Self::new(e.status(), e.body_text())
    }
}

impl From<MultipartError> for ApiError {
    fn from(e: MultipartError) -> Self {
        Self::new(e.status(), e.body_text())
    }
}

/// Makes the routes of a service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let wear = Arc::new(wear::Wear::new(&app.manifest.settings));
    let mut router = Router::new()
        .route("/", get(index))
        .route("/style.css", get(style))
        .route("/health", get(health))
        .route("/api/version", get(version))
        .route("/api/stats", get(stats))
        .route("/api/notes", get(notes).post(add_note))
        .route("/api/notes/{id}", get(note).put(change_note).delete(delete_note))
        .route("/api/uploads", get(uploads).post(add_upload).layer(DefaultBodyLimit::max(UPLOAD_MAX_BYTES)))
        .route("/uploads/{id}", get(download));
    if app.manifest.has(Feature::Reminders) {
        router = router
            .route("/api/reminders", get(reminders).post(add_reminder))
            .route("/api/reminders/{id}", delete(delete_reminder));
    }
    router
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), check_token))
        .layer(middleware::from_fn_with_state(wear, wear::meet))
        .layer(middleware::from_fn(log_access))
        .with_state(app)
}

async fn log_access(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    // A log whose reader is gone must not stop the service.
    let _ = writeln!(
        std::io::stdout(),
        "{} {method} {path} {} {}B {:.1}ms",
        store::now(),
        response.status().as_u16(),
        response.body().size_hint().lower(),
        started.elapsed().as_secs_f64() * 1_000.0,
    );
    response
}

async fn check_token(State(app): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if let Some(token) = app.token
        && (writes || path == "/api" || path.starts_with("/api/"))
    {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // Digests compare in constant time.
        if shown.map(blake3::hash) != Some(token) {
            let error = ApiError::new(StatusCode::UNAUTHORIZED, "missing or wrong token");
            return ([(header::WWW_AUTHENTICATE, "Bearer")], error).into_response();
        }
    }
    next.run(request).await
}

/// Runs blocking work with a connection, away from the threads that serve the network.
async fn with_db<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&mut Connection, &App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let mut lease: Lease = Arc::clone(&app.pool).lease().await?;
    let app = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(lease.connection()?, &app));
    done.await.map_err(|e| ApiError::internal(format!("request failed: {e}")))?
}

/// As [`with_db`], for work that writes: one at a time.
async fn write_db<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&mut Connection, &App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    with_db(app, |conn, app| {
        let _turn = app.pool.writer();
        work(conn, app)
    })
    .await
}

fn parse_id(id: &str) -> Result<i64, ApiError> {
    id.parse().map_err(|_| ApiError::not_found())
}

fn found<T>(row: Option<T>) -> Result<T, ApiError> {
    row.ok_or_else(ApiError::not_found)
}

fn gone(deleted: bool) -> Answer {
    if deleted { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(ApiError::not_found()) }
}

/// A list's query; as a map, because that is never refused in plain text.
type ListQuery = Query<BTreeMap<String, String>>;

fn limit_of(Query(query): &ListQuery) -> Result<u32, ApiError> {
    let Some(text) = query.get("limit") else {
        return Ok(LIMIT_DEFAULT);
    };
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(ApiError::bad(format!("limit must be a number from 1 to {LIMIT_MAX}"))),
    }
}

async fn index(State(app): Shared) -> Response {
    // The page's script is inline; nothing else may run, and nothing is loaded from elsewhere.
    let policy = "default-src 'self'; img-src data:; script-src 'unsafe-inline'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(app.index_html.clone())).into_response()
}

async fn style(State(app): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], app.style_css.clone()).into_response()
}

async fn health(State(app): Shared) -> Response {
    let version = &app.manifest.version;
    match &app.manifest.settings.unhealthy_because {
        None => Json(json!({ "status": "ok", "version": version })).into_response(),
        Some(reason) => {
            let body = json!({ "status": "unavailable", "version": version, "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn version(State(app): Shared) -> Answer {
    let schema = with_db(&app, |conn, _| Ok(schema::version(conn)?)).await?;
    let Manifest { version, features, .. } = &app.manifest;
    Ok(Json(json!({ "version": version, "schema": schema, "features": features })).into_response())
}

async fn stats(State(app): Shared) -> Answer {
    let stats = with_db(&app, |conn, app| Ok(store::stats(conn, &app.manifest)?)).await?;
    Ok(Json(stats).into_response())
}

async fn notes(State(app): Shared, query: ListQuery) -> Answer {
    let limit = limit_of(&query)?;
    let notes = with_db(&app, move |conn, app| Ok(store::notes(conn, &app.manifest, limit)?)).await?;
    Ok(Json(notes).into_response())
}

async fn note(State(app): Shared, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let note = with_db(&app, move |conn, app| Ok(store::note(conn, &app.manifest, id)?)).await?;
    Ok(Json(found(note)?).into_response())
}

fn check_change(change: &NoteChange) -> Result<(), ApiError> {
    if let Some(title) = &change.title
        && (title.trim().is_empty() || title.chars().count() > TITLE_MAX_CHARS)
    {
        return Err(ApiError::bad(format!("title must have 1 to {TITLE_MAX_CHARS} characters")));
    }
    if change.priority.is_some_and(|priority| !(0..=3).contains(&priority)) {
        return Err(ApiError::bad("priority must be a number from 0 to 3"));
    }
    let bad_tag = |tag: &String| tag.trim().is_empty() || tag.chars().any(char::is_control);
    if change.tags.as_ref().is_some_and(|tags| tags.iter().any(bad_tag)) {
        return Err(ApiError::bad("tags must not be empty or have control characters"));
    }
    Ok(())
}

async fn add_note(State(app): Shared, body: Result<Json<NoteChange>, JsonRejection>) -> Answer {
    let Json(new) = body?;
    if new.title.is_none() {
        return Err(ApiError::bad("title is missing"));
    }
    check_change(&new)?;
    let note = write_db(&app, move |conn, app| Ok(store::add_note(conn, &app.manifest, &new)?)).await?;
    Ok((StatusCode::CREATED, Json(note)).into_response())
}

async fn change_note(
    State(app): Shared,
    Path(id): Path<String>,
    body: Result<Json<NoteChange>, JsonRejection>,
) -> Answer {
    let id = parse_id(&id)?;
    let Json(change) = body?;
    check_change(&change)?;
    let note =
        write_db(&app, move |conn, app| Ok(store::change_note(conn, &app.manifest, id, &change)?)).await?;
    Ok(Json(found(note)?).into_response())
}

async fn delete_note(State(app): Shared, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    gone(write_db(&app, move |conn, _| Ok(store::delete_note(conn, id)?)).await?)
}

async fn reminders(State(app): Shared, query: ListQuery) -> Answer {
    let limit = limit_of(&query)?;
    let reminders = with_db(&app, move |conn, _| Ok(store::reminders(conn, limit)?)).await?;
    Ok(Json(reminders).into_response())
}

#[derive(Deserialize)]
struct NewReminder {
    note_id: i64,
    at: String,
}

async fn add_reminder(State(app): Shared, body: Result<Json<NewReminder>, JsonRejection>) -> Answer {
    let Json(new) = body?;
    let at: jiff::Timestamp =
        new.at.parse().map_err(|_| ApiError::bad("at must be a time such as 2026-01-31T09:00:00Z"))?;
    let at = store::timestamp(at);
    let reminder = write_db(&app, move |conn, _| Ok(store::add_reminder(conn, new.note_id, &at)?)).await?;
    Ok((StatusCode::CREATED, Json(found(reminder)?)).into_response())
}

async fn delete_reminder(State(app): Shared, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    gone(write_db(&app, move |conn, _| Ok(store::delete_reminder(conn, id)?)).await?)
}

async fn uploads(State(app): Shared, query: ListQuery) -> Answer {
    let limit = limit_of(&query)?;
    let uploads = with_db(&app, move |conn, _| Ok(store::uploads(conn, limit)?)).await?;
    Ok(Json(uploads).into_response())
}

async fn add_upload(State(app): Shared, mut form: Multipart) -> Answer {
    while let Some(field) = form.next_field().await? {
        if field.name() != Some("file") {
            continue;
        }
        let name = files::safe_name(field.file_name().unwrap_or_default());
        let bytes = field.bytes().await?;
        let answer = write_db(&app, move |conn, app| {
            let digest = blake3::hash(&bytes);
            let stored_as = files::stored_name(&digest, &name);
            // The bytes first: a row must never name a file that is not there.
            files::store(&app.uploads, &stored_as, &bytes)
                .map_err(|e| ApiError::internal(format!("could not store the upload: {e}")))?;
            let upload = store::add_upload(conn, &name, bytes.len() as i64, &stored_as, &store::now())?;
            let mut answer = json!(upload);
            answer["blake3"] = Value::from(digest.to_hex().as_str());
            Ok(answer)
        });
        return Ok((StatusCode::CREATED, Json(answer.await?)).into_response());
    }
    Err(ApiError::bad("the form has no field `file`"))
}

async fn download(State(app): Shared, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let (name, bytes) = with_db(&app, move |conn, app| {
        let upload = found(store::upload(conn, id)?)?;
        let path = files::path_of(&app.uploads, &upload.stored_as)
            .ok_or_else(|| ApiError::internal(format!("upload {id} is stored under a path")))?;
        let bytes =
            std::fs::read(path).map_err(|e| ApiError::internal(format!("bytes of upload {id}: {e}")))?;
        Ok((upload.name, bytes))
    })
    .await?;
    // Never shown in place: an uploaded page must not run with this site's rights.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{}", percent_encode(&name))),
    ];
    Ok((headers, bytes).into_response())
}

/// Encodes a name for a header, as RFC 8187 has it.
fn percent_encode(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
