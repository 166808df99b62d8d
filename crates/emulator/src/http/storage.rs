//! `/uploads/{blob}`: the storage account, as far as a device's upload needs it ("Put Blob", "Put Block", "Put Block List",
//! "Get Blob" of Azure Storage). Azure's storage clients write small files with the first, large ones with the other two.
//!
//! Errors have Azure Storage's form, an XML document and `x-ms-error-code`. The token is judged before the body is read, and
//! few bodies are read at a time: a file is held in memory.

use axum::{
    body::to_bytes,
    extract::{FromRequestParts as _, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LAST_MODIFIED},
    },
    response::{IntoResponse, Response},
};
use iothub::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::{Reader, events::Event};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tokio::time::timeout;

use super::{
    Http,
    extract::{Path, Query, compact},
    files::BYTES,
};
use crate::hub::{BlobToken, FileError, FileInfo};

/// The name of the only container.
pub(super) const CONTAINER: &str = "uploads";

/// The token as a query: what comes behind the file's address.
pub(super) fn to_query(token: &BlobToken) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    format!(
        "?sv={VERSION}&sr=b&sp={}&se={}&sig={}",
        encoded(&token.permissions),
        encoded(&token.expires_at),
        encoded(&token.signature)
    )
}

/// Writes a file, a block of it, or the list of its blocks.
pub(super) async fn write(
    State(http): State<Http>,
    request: Request,
) -> Result<Response, StorageError> {
    let (mut parts, body) = request.into_parts();
    let wanted = Wanted::of(&mut parts, &http).await?;
    let step = wanted.step(&parts.headers)?;
    let most = http.shell.with(|hub, _| hub.files().most_in_file());
    let read = async {
        // Nobody closes it: it lasts as long as the router.
        let _place = http.uploads.acquire().await.ok()?;
        to_bytes(body, most).await.map(compact).ok()
    };
    let content = match timeout(http.limits.body, read).await {
        Ok(Some(content)) => content,
        Ok(None) => return Err(FileError::TooLarge.into()),
        Err(_) => return Err(StorageError::TOO_SLOW),
    };
    let is_new = parts
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|tag| tag == "*");
    let content_type = content_type(&parts.headers, &step);
    let blob = wanted.blob;
    let written = match step {
        Step::Block(id) => {
            http.shell
                .with(|hub, _| hub.files_mut().put_block(&blob, &id, content))?;
            None
        }
        Step::Whole => Some(http.shell.with(|hub, now| {
            let files = hub.files_mut();
            files.put(&blob, content, content_type, is_new, now.utc)
        })?),
        Step::List => {
            let ids = block_list(&content)?;
            Some(http.shell.with(|hub, now| {
                let files = hub.files_mut();
                files.put_block_list(&blob, &ids, content_type, is_new, now.utc)
            })?)
        }
    };
    let mut headers = written.as_ref().map(described).unwrap_or_default();
    headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
    headers.insert(
        "x-ms-request-server-encrypted",
        HeaderValue::from_static("true"),
    );
    Ok((StatusCode::CREATED, headers).into_response())
}

/// Reads a file, whole.
pub(super) async fn read(
    State(http): State<Http>,
    request: Request,
) -> Result<Response, StorageError> {
    let (mut parts, _) = request.into_parts();
    let wanted = Wanted::of(&mut parts, &http).await?;
    let file = http.shell.with(|hub, _| hub.files().read(&wanted.blob));
    let file = file.ok_or(FileError::NotFound)?;
    let mut headers = described(&file.info);
    let content_type = file.info.content_type.as_deref();
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(BYTES));
    headers.insert("x-ms-blob-type", HeaderValue::from_static(BLOCK_BLOB));
    headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
    Ok((headers, file.content).into_response())
}

/// What an upload is done in.
enum Step {
    Whole,
    Block(String),
    List,
}

/// A request that may do what it asks for.
struct Wanted {
    blob: String,
    query: BlobQuery,
}

#[derive(Deserialize)]
struct BlobQuery {
    se: Option<String>,
    sp: Option<String>,
    sig: Option<String>,
    comp: Option<String>,
    blockid: Option<String>,
}

impl Wanted {
    async fn of(parts: &mut axum::http::request::Parts, http: &Http) -> Result<Self, StorageError> {
        let path = Path::<String>::from_request_parts(parts, http).await;
        let Path(blob) = path.map_err(|_| StorageError::URI)?;
        let query = Query::<BlobQuery>::from_request_parts(parts, http).await;
        let Query(mut query) = query.map_err(|_| StorageError::URI)?;
        let token = BlobToken {
            expires_at: query.se.take().unwrap_or_default(),
            permissions: query.sp.take().unwrap_or_default(),
            signature: base64(query.sig.take().unwrap_or_default()),
        };
        http.shell
            .with(|hub, now| hub.authorize_blob(&blob, &token, now))?;
        Ok(Self { blob, query })
    }

    fn step(&self, headers: &HeaderMap) -> Result<Step, StorageError> {
        match (self.query.comp.as_deref(), &self.query.blockid) {
            (Some("block"), Some(id)) => Ok(Step::Block(base64(id.clone()))),
            (Some("blocklist"), _) => Ok(Step::List),
            (Some(_), _) => Err(StorageError::QUERY),
            (None, _) => match headers.get("x-ms-blob-type") {
                Some(kind) if kind == BLOCK_BLOB => Ok(Step::Whole),
                Some(_) => Err(StorageError::BLOB_TYPE),
                None => Err(StorageError::NO_BLOB_TYPE),
            },
        }
    }
}

/// A plus that was not encoded comes out of a query as a space, which base64 has not.
fn base64(text: String) -> String {
    text.replace(' ', "+")
}

fn content_type(headers: &HeaderMap, step: &Step) -> Option<String> {
    let own = headers.get("x-ms-blob-content-type");
    let value = match step {
        Step::Whole => own.or_else(|| headers.get(CONTENT_TYPE)),
        // The content type of the request is that of the list.
        Step::List | Step::Block(_) => own,
    };
    value?.to_str().ok().map(str::to_owned)
}

fn described(file: &FileInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(etag) = HeaderValue::from_str(&file.etag) {
        headers.insert(ETAG, etag);
    }
    if let Ok(modified) = HeaderValue::from_str(&http_date(file.modified_at)) {
        headers.insert(LAST_MODIFIED, modified);
    }
    headers
}

fn http_date(at: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at.unix_seconds()).ok();
    time.and_then(|time| time.format(HTTP_DATE).ok())
        .unwrap_or_default()
}

/// `<BlockList><Latest>id</Latest>...</BlockList>`; `Uncommitted` is the same here.
fn block_list(xml: &[u8]) -> Result<Vec<String>, StorageError> {
    let text = str::from_utf8(xml).map_err(|_| StorageError::XML)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().trim_text(true);
    let mut ids = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut is_list = false;
    loop {
        match reader.read_event().map_err(|_| StorageError::XML)? {
            Event::Start(tag) => {
                open.push(tag.local_name().as_ref().to_owned());
                let names: Vec<_> = open.iter().map(String::as_str).collect();
                match *names {
                    ["BlockList"] if !is_list => is_list = true,
                    ["BlockList", "Latest" | "Uncommitted"] => {}
                    ["BlockList", "Committed"] => return Err(FileError::BlockList.into()),
                    _ => return Err(StorageError::XML),
                }
            }
            Event::Empty(tag) if open.is_empty() && !is_list => {
                is_list = tag.local_name().as_ref() == "BlockList";
            }
            Event::Text(text) if open.len() == 2 => ids.push(text.to_string()),
            Event::End(_) => {
                open.pop();
            }
            Event::Eof if open.is_empty() && is_list => return Ok(ids),
            Event::Decl(_) | Event::Comment(_) => {}
            Event::Text(_)
            | Event::Eof
            | Event::Empty(_)
            | Event::CData(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => return Err(StorageError::XML),
        }
    }
}

/// An error in the form of Azure Storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageError {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl StorageError {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
        }
    }

    const TOO_SLOW: Self = Self::new(
        StatusCode::REQUEST_TIMEOUT,
        "OperationTimedOut",
        "The body did not come in time.",
    );
    const URI: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "InvalidUri",
        "The address cannot be read.",
    );
    const XML: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "InvalidXmlDocument",
        "The body is no list of blocks.",
    );
    const QUERY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "InvalidQueryParameterValue",
        "Of comp there is block, with a blockid, and blocklist.",
    );
    const BLOB_TYPE: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "InvalidHeaderValue",
        "Of x-ms-blob-type there is BlockBlob.",
    );
    const NO_BLOB_TYPE: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "MissingRequiredHeader",
        "x-ms-blob-type is missing.",
    );
}

/// The codes are those of "Blob Storage error codes".
impl From<FileError> for StorageError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Unauthenticated => Self::new(
                StatusCode::FORBIDDEN,
                "AuthenticationFailed",
                "The signature does not fit, or its time is over.",
            ),
            FileError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "BlobNotFound",
                "The specified blob does not exist.",
            ),
            FileError::Exists => Self::new(
                StatusCode::CONFLICT,
                "BlobAlreadyExists",
                "The specified blob already exists.",
            ),
            FileError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestBodyTooLarge",
                "The file is larger than files may be here, or was cut off.",
            ),
            FileError::BlockId => Self::new(
                StatusCode::BAD_REQUEST,
                "InvalidBlockId",
                "A block's id is the base64 form of 1 to 64 bytes.",
            ),
            FileError::BlockList => Self::new(
                StatusCode::BAD_REQUEST,
                "InvalidBlockList",
                "The list names a block that was not written.",
            ),
            FileError::TooManyBlocks => Self::new(
                StatusCode::CONFLICT,
                "BlockCountExceedsLimit",
                "A file has at most 50,000 blocks.",
            ),
        }
    }
}

impl IntoResponse for StorageError {
    fn into_response(self) -> Response {
        let (code, message) = (self.code, self.message);
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let headers = [
            ("content-type", "application/xml"),
            ("x-ms-error-code", code),
        ];
        (self.status, headers, body).into_response()
    }
}

const VERSION: &str = "2021-04-10";
const BLOCK_BLOB: &str = "BlockBlob";
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
