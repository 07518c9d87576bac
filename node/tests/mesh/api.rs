//! Byte streams.

use rialto_node::mesh::{MeshEvent, PeerStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Node, admit, counted};

async fn incoming(node: &mut Node) -> PeerStream {
    node.until("a byte stream", |event| match event {
        MeshEvent::ApiStream { stream, .. } => Ok(stream),
        other => Err(other),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_comes_back() {
    let one = Node::start(1).await;
    let mut two = Node::start(2).await;
    let (_, addresses) = two.entry();
    one.mesh.set_members(vec![(two.peer(), Vec::new())]);
    two.mesh.set_members(vec![one.entry()]);
    let to = two.peer();
    let echo = tokio::spawn(async move {
        loop {
            let stream = incoming(&mut two).await;
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
    let calls: Vec<_> = (0..50u8)
        .map(|number| {
            let (mesh, addresses) = (one.mesh.clone(), addresses.clone());
            tokio::spawn(async move {
                let stream = mesh.open(to, &addresses).await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(stream);
                let sent = vec![number; 300_000];
                let (sending, mut back) = (sent.clone(), Vec::new());
                let send = async {
                    writer.write_all(&sending).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let (_, read) = tokio::join!(send, reader.read_to_end(&mut back));
                read.unwrap();
                assert!(back == sent);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    echo.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_has_so_many_at_once() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    admit(&nodes);
    let to = nodes[1].peer();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        ours.push(nodes[0].mesh.open(to, &[]).await.unwrap());
        theirs.push(incoming(&mut nodes[1]).await);
    }
    let mut refused = nodes[0].mesh.open(to, &[]).await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    counted(&nodes[1].mesh, "the refusal", |counters| counters.streams_refused == 1).await;
    theirs.pop();
    let mut again = nodes[0].mesh.open(to, &[]).await.unwrap();
    let mut stream = incoming(&mut nodes[1]).await;
    again.write_all(b"hello").await.unwrap();
    again.flush().await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}
