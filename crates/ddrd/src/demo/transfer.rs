//! Push and pull over the OCI distribution API, as a registry client does it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::digest::{Algorithm, Digest, Hasher};
use ddr_oci::media_type;
use futures_util::TryStreamExt;
use futures_util::stream::{self, Stream};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::image::{BlobInfo, Image, Source};
use super::progress::Progress;
use super::{DemoError, REPOSITORY, TAG};
use crate::client;

/// Bytes read from a file and sent at one time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of an error answer that are shown.
const SHOWN_BYTES: usize = 300;

/// Pushes blobs, then the manifest under its tag.
pub(super) async fn push(
    registry: SocketAddr,
    image: &Image,
    progress: &Arc<Progress>,
) -> Result<(), DemoError> {
    for blob in image.blobs() {
        push_blob(registry, blob, progress).await?;
    }
    let request = Request::put(format!("/v2/{REPOSITORY}/manifests/{TAG}"))
        .header(CONTENT_TYPE, media_type::OCI_MANIFEST)
        .body(Full::new(Bytes::from(image.manifest.clone())));
    let answer = client::send(registry, built(request)?).await?;
    expect(registry, answer, StatusCode::CREATED, "push of the manifest").await?;
    Ok(())
}

async fn push_blob(
    registry: SocketAddr,
    blob: BlobInfo<'_>,
    progress: &Arc<Progress>,
) -> Result<(), DemoError> {
    let start =
        Request::post(format!("/v2/{REPOSITORY}/blobs/uploads/")).body(Empty::<Bytes>::new());
    let answer = client::send(registry, built(start)?).await?;
    let answer = expect(registry, answer, StatusCode::ACCEPTED, "start of an upload").await?;
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| wrong("an upload was started without a Location"))?;
    let mark = if location.contains('?') { '&' } else { '?' };
    let put = Request::put(format!("{location}{mark}digest={}", blob.digest))
        .header(CONTENT_LENGTH, blob.size)
        .header(CONTENT_TYPE, media_type::OCTET_STREAM);
    let progress = Arc::clone(progress);
    let answer = match blob.source {
        Source::Memory(bytes) => {
            progress.add(blob.size);
            client::send(registry, built(put.body(Full::new(Bytes::copy_from_slice(bytes))))?)
                .await?
        }
        Source::File(path) => {
            let file = File::open(path).await.map_err(super::file("opening a layer"))?;
            let frames = chunks(file).map_ok(move |bytes| {
                progress.add(bytes.len() as u64);
                Frame::data(bytes)
            });
            let body = StreamBody::new(Box::pin(frames));
            client::send(registry, built(put.body(body))?).await?
        }
    };
    expect(registry, answer, StatusCode::CREATED, "push of a blob").await?;
    Ok(())
}

fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), file)))
    })
}

/// Pulls the tag and everything it names, and compares each digest with what was pushed.
pub(super) async fn pull(
    registry: SocketAddr,
    image: &Image,
    progress: &Progress,
) -> Result<(), DemoError> {
    let request = Request::get(format!("/v2/{REPOSITORY}/manifests/{TAG}"))
        .header(ACCEPT, media_type::OCI_MANIFEST)
        .body(Empty::<Bytes>::new());
    let answer = client::send(registry, built(request)?).await?;
    let answer = expect(registry, answer, StatusCode::OK, "pull of the manifest").await?;
    let manifest = client::read(registry, answer).await?;
    if manifest[..] != image.manifest[..] {
        return Err(wrong("the tag resolves to another manifest than the one that was pushed"));
    }
    for blob in image.blobs() {
        pull_blob(registry, blob, progress).await?;
    }
    Ok(())
}

async fn pull_blob(
    registry: SocketAddr,
    blob: BlobInfo<'_>,
    progress: &Progress,
) -> Result<(), DemoError> {
    let request =
        Request::get(format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)).body(Empty::<Bytes>::new());
    let answer = client::send(registry, built(request)?).await?;
    let answer = expect(registry, answer, StatusCode::OK, "pull of a blob").await?;
    let mut body = answer.into_body();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| wrong(&format!("a blob ended early: {error}")))?;
        if let Some(bytes) = frame.data_ref() {
            hasher.update(bytes);
            progress.add(bytes.len() as u64);
        }
    }
    let got: Digest = hasher.finish();
    if got != blob.digest {
        return Err(wrong(&format!("blob {} came back as {got}", blob.digest)));
    }
    Ok(())
}

/// The answer if it has the `wanted` status, else an error with the start of its body.
async fn expect(
    registry: SocketAddr,
    answer: Response<Incoming>,
    wanted: StatusCode,
    step: &str,
) -> Result<Response<Incoming>, DemoError> {
    let status = answer.status();
    if status == wanted {
        return Ok(answer);
    }
    let body = client::read(registry, answer).await?;
    let shown = &body[..body.len().min(SHOWN_BYTES)];
    Err(DemoError::Refused {
        step: step.to_owned(),
        status: status.as_u16(),
        body: String::from_utf8_lossy(shown).into_owned(),
    })
}

fn built<B>(request: http::Result<Request<B>>) -> Result<Request<B>, DemoError> {
    request.map_err(|error| wrong(&format!("a request could not be made: {error}")))
}

fn wrong(text: &str) -> DemoError {
    DemoError::Wrong(text.to_owned())
}
