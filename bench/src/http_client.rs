//! An HTTPS client that costs little, so that the load generator leaves the machine to what it measures.
//!
//! Over HTTP/1.1 the requests are bytes made beforehand, and an answer is read with one parse of its head. Over HTTP/2
//! it is hyper's client. Either way a connection carries one request at a time.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::Endpoint;

/// A request, ready to be sent often.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    request: Request<Bytes>,
    wire: Bytes,
    /// Where in it more headers may stand.
    headers_end: usize,
}

/// What came back; no request of ours wants the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<String>,
}

/// One connection to a peer.
pub(crate) struct Connection(Kind);

enum Kind {
    Http1 {
        stream: TlsStream<TcpStream>,
        input: Vec<u8>,
    },
    Http2 {
        sender: SendRequest<Full<Bytes>>,
        /// Hyper's side of the connection; ends when this is dropped.
        _driver: JoinSet<()>,
    },
}

impl Prepared {
    /// A request of a device that shows this token.
    pub(crate) fn new(
        peer: &Endpoint,
        method: Method,
        path: &str,
        token: &str,
        body: &str,
    ) -> anyhow::Result<Self> {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let headers = if body.is_empty() { &[][..] } else { &json };
        let body = Bytes::copy_from_slice(body.as_bytes());
        Self::with_headers(peer, method, path, token, headers, body)
    }

    /// A request of a device that shows this token, with these headers besides.
    pub(crate) fn with_headers(
        peer: &Endpoint,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> anyhow::Result<Self> {
        let authority = format!("{}:{}", peer.name, peer.address.port());
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("https://{authority}{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n"
        );
        for (name, value) in headers {
            request = request.header(name, *value);
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let headers_end = head.len();
        head += "\r\n";
        Ok(Self {
            wire: [head.as_bytes(), &body].concat().into(),
            headers_end,
            request: request
                .version(Version::HTTP_2)
                .body(body)
                .with_context(|| format!("{method} {path} is no request"))?,
        })
    }

    /// The same request with another header.
    pub(crate) fn and(&self, name: HeaderName, value: &str) -> anyhow::Result<Self> {
        let (head, rest) = self.wire.split_at(self.headers_end);
        let mut wire =
            BytesMut::with_capacity(self.wire.len() + name.as_str().len() + value.len() + 4);
        for part in [
            head,
            name.as_str().as_bytes(),
            b": ",
            value.as_bytes(),
            b"\r\n",
        ] {
            wire.extend_from_slice(part);
        }
        let headers_end = wire.len();
        wire.extend_from_slice(rest);
        let mut request = self.request.clone();
        request.headers_mut().insert(name, value.parse()?);
        Ok(Self {
            request,
            wire: wire.freeze(),
            headers_end,
        })
    }
}

impl Connection {
    /// Connects; the protocols offered in `tls` decide which HTTP is spoken.
    pub(crate) async fn open(peer: &Endpoint, tls: &TlsConnector) -> anyhow::Result<Self> {
        let stream = peer.connect(tls).await?;
        if stream.get_ref().1.alpn_protocol() != Some(crate::tls::HTTP2) {
            let input = Vec::with_capacity(1024);
            return Ok(Self(Kind::Http1 { stream, input }));
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .context("HTTP/2 did not begin")?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // Its end shows in the next request.
            connection.await.ok();
        });
        Ok(Self(Kind::Http2 {
            sender,
            _driver: driver,
        }))
    }

    /// Sends one request and reads its answer.
    pub(crate) async fn exchange(&mut self, prepared: &Prepared) -> anyhow::Result<Answer> {
        match &mut self.0 {
            Kind::Http1 { stream, input } => {
                stream.write_all(&prepared.wire).await?;
                stream.flush().await?;
                read_answer(stream, input).await
            }
            Kind::Http2 { sender, .. } => {
                let response = sender
                    .send_request(prepared.request.clone().map(Full::new))
                    .await?;
                let (head, body) = response.into_parts();
                body.collect().await?;
                Ok(Answer {
                    status: head.status,
                    etag: etag(&head.headers),
                })
            }
        }
    }
}

/// A peer that answers with more than this is refused.
const LONGEST_ANSWER: usize = 64 * 1024;

async fn read_answer(
    stream: &mut TlsStream<TcpStream>,
    input: &mut Vec<u8>,
) -> anyhow::Result<Answer> {
    input.clear();
    loop {
        if stream.read_buf(input).await? == 0 {
            bail!("the peer closed the connection");
        }
        if let Some((answer, length)) = parse_answer(input)?
            && input.len() >= length
        {
            if input.len() > length {
                bail!("the peer answered more than it was asked");
            }
            return Ok(answer);
        }
        if input.len() > LONGEST_ANSWER {
            bail!("the answer is longer than {LONGEST_ANSWER} bytes");
        }
    }
}

/// The answer and its length with its body, once the head is complete.
fn parse_answer(input: &[u8]) -> anyhow::Result<Option<(Answer, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) =
        response.parse(input).context("the answer is no HTTP")?
    else {
        return Ok(None);
    };
    let code = response.code.context("the answer has no status")?;
    let mut body = 0;
    let mut etag = None;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(field.value)?.trim().parse()?;
        } else if field.name.eq_ignore_ascii_case("etag") {
            etag = Some(String::from_utf8_lossy(field.value).into_owned());
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the peer answers in chunks; the load generator reads whole bodies");
        }
    }
    let status = StatusCode::from_u16(code)?;
    Ok(Some((Answer { status, etag }, head + body)))
}

fn etag(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::ETAG)?.to_str().ok()?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_body_ends() {
        let input = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nETag: \"x\"\r\n\r\n{}";
        for cut in 0..input.len() - 2 {
            assert!(parse_answer(&input[..cut]).unwrap().is_none(), "{cut}");
        }
        let (answer, length) = parse_answer(input).unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.etag.as_deref(), Some("\"x\""));
        assert_eq!(length, input.len());
    }

    #[test]
    fn an_answer_without_a_body_ends_with_its_head() {
        let input = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(parse_answer(input).unwrap().unwrap().1, input.len());
    }

    #[test]
    fn a_prepared_request_is_the_same_on_the_wire_as_in_parts() {
        let peer = Endpoint {
            address: ([127, 0, 0, 1], 8443).into(),
            name: "localhost".to_owned(),
            ca_file: "ca.pem".into(),
        };
        let prepared =
            Prepared::new(&peer, Method::POST, "/devices/d/messages/events", "t", "{}").unwrap();
        assert_eq!(
            prepared.wire,
            "POST /devices/d/messages/events HTTP/1.1\r\nhost: localhost:8443\r\nauthorization: Bearer t\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert_eq!(prepared.request.uri().path(), "/devices/d/messages/events");
        assert_eq!(prepared.request.body(), "{}");

        let more = prepared.and(header::ETAG, "x").unwrap();
        let wire = std::str::from_utf8(&more.wire).unwrap();
        assert!(
            wire.ends_with("content-length: 2\r\netag: x\r\n\r\n{}"),
            "{wire}"
        );
        assert_eq!(more.request.headers()[header::ETAG], "x");
    }
}
