//! What this instance is doing now, beside what the store keeps.

use super::status::Status;

/// What the API asks of the running process. Nothing here takes a token from a bucket.
pub trait Live: Send + Sync {
    /// This instance's id, as in `Via`: answers about counts are its own.
    fn instance(&self) -> &str;

    /// What `GET /v1/status` shows. Must not wait.
    fn status(&self) -> Status;
}
