//! Refusals as people and programs read them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::{ErrorBody, ErrorCode};
use rialto_protocol::effect::Refusal;

/// A request that is refused: [`ErrorBody`] with an HTTP status.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    body: Box<ErrorBody>,
    status: StatusCode,
}

impl Problem {
    /// A refusal with the status of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { body: Box::new(ErrorBody { code, message: message.into(), hint: None, place: None }), status }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} not found"))
    }

    /// The machine that has it cannot be reached.
    pub fn unreachable(machine: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unreachable, message).at(machine)
    }

    /// The brain no longer answers: the peer is on its way out.
    pub fn going_down() -> Self {
        Self::new(ErrorCode::Busy, "this peer is going down").hint("ask another peer")
    }

    /// A way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// The field, line or machine that is to blame.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.body.place = Some(place.into());
        self
    }

    /// A more exact HTTP status than the code's.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn body(&self) -> &ErrorBody {
        &self.body
    }

    pub fn into_body(self) -> ErrorBody {
        *self.body
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound(_) => ErrorCode::NotFound,
            Refusal::Invalid(_) => ErrorCode::Invalid,
            Refusal::Denied(_) => ErrorCode::Denied,
            Refusal::Busy => ErrorCode::Busy,
        };
        Problem::new(code, refusal.to_string())
    }
}

impl From<ErrorBody> for Problem {
    fn from(body: ErrorBody) -> Self {
        let status = StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { body: Box::new(body), status }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.body)).into_response();
        if self.body.code == ErrorCode::Unauthorized {
            let challenge = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
