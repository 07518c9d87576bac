//! Reads what a request carries: bounded, and refused with the place that is wrong.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_body_util::{BodyExt, Limited};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::ids::ChangeId;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;

/// The most bytes of a request's body; an image's archive is streamed and not counted.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// A body must be complete after this.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A JSON body. Its content type is not looked at.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let bytes = read_body(request.into_body()).await?;
        read_json(&bytes).map(Json)
    }
}

/// A field that nobody knows is a mistake of whoever sent it, at whatever depth: it is named, not passed over.
fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_ignored::deserialize(&mut json, |path| unknown.push(path.to_string()));
    let value = value.and_then(|value| json.end().map(|()| value)).map_err(|error| {
        let place = format!("body:{}:{}", error.line(), error.column());
        Problem::invalid(format!("the body is not the JSON that is expected: {error}")).at(place)
    })?;
    match unknown.into_iter().next() {
        Some(path) => Err(Problem::invalid(format!("there is no field `{path}`")).at(path)),
        None => Ok(value),
    }
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            Err(Problem::invalid(message).at("body").with_status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Ok(Err(error)) => Err(Problem::invalid(format!("the body broke off: {error}")).at("body")),
        Err(_) => Err(Problem::new(ErrorCode::TimedOut, "the body did not arrive in time")
            .at("body")
            .with_status(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// The one variable segment of a path.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(error) => Err(Problem::invalid(error.body_text()).at("path")),
        }
    }
}

/// The query; keys that are not known are refused.
pub struct Options<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Options<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(options)) => Ok(Self(options)),
            Err(error) => Err(Problem::invalid(error.body_text()).at("query")),
        }
    }
}

/// Reads a switch of a query: `?all`, `?all=true`, `?all=1`, and their opposites.
pub fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(D::Error::custom(format!("`{other}` is neither true nor false"))),
    }
}

/// A change's id, as its maker names it.
pub fn change_id(text: &str) -> Result<ChangeId, Problem> {
    ChangeId::from_hex(text).ok_or_else(|| Problem::invalid("`change` is 32 hexadecimal digits").at("change"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request as HttpRequest;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        #[allow(dead_code)]
        replicas: u32,
    }

    #[tokio::test]
    async fn a_bad_body_is_refused_with_its_place() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"", Some("body:1:0")),
            (b"{\n  \"replicas\": x}", Some("body:2:15")),
            (b"{\"replicas\": -1}", Some("body:1:15")),
            (b"{}", Some("body:1:2")),
            (b"\xff\xfe", Some("body:1:1")),
            (b"{\"replicas\": 4294967296}", Some("body:1:23")),
        ];
        for (bytes, place) in cases {
            let request = HttpRequest::new(Body::from(bytes));
            let problem = Json::<Shape>::from_request(request, &()).await.err().expect("it is refused");
            assert_eq!(problem.body().place.as_deref(), place, "{}", String::from_utf8_lossy(bytes));
            assert_eq!(problem.status(), 400);
        }
    }

    #[tokio::test]
    async fn a_body_of_more_than_a_mebibyte_is_refused() {
        let request = HttpRequest::new(Body::from(vec![b' '; BODY_BYTES_MAX + 1]));
        let problem = Json::<Shape>::from_request(request, &()).await.err().expect("it is refused");
        assert_eq!(problem.status(), 413);
    }

    #[test]
    fn a_change_is_named_by_32_digits() {
        assert!(change_id("00112233445566778899aabbccddeeff").is_ok());
        for bad in ["", "0", "00112233445566778899aabbccddeef", "g0112233445566778899aabbccddeeff", "é"] {
            assert!(change_id(bad).is_err(), "{bad:?}");
        }
    }
}
