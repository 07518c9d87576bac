//! Newcomers and strangers.

use rialto_node::invitation::{Invitation, Secret};
use rialto_node::mesh::{HelloError, MeshEvent};
use rialto_protocol::ids::{ClusterId, InvitationId};

use crate::world::{CLUSTER, Node, all_linked, beat, counted};

fn invitation(to: &Node) -> Invitation {
    Invitation {
        cluster: CLUSTER,
        inviter: to.peer(),
        invitation: InvitationId([4; 16]),
        secret: Secret([5; 32]),
        addresses: vec![to.address.to_string()],
    }
}

/// Answers one hello as a driver does.
async fn decide(member: &mut Node, newcomer: &Node, admit: bool) {
    let (reply, secret_hash) = member
        .until("a hello", |event| match event {
            MeshEvent::Hello { from, cluster, invitation, secret_hash, reply } => {
                assert_eq!((from, cluster, invitation), (newcomer.peer(), CLUSTER, InvitationId([4; 16])));
                Ok((reply, secret_hash))
            }
            other => Err(other),
        })
        .await;
    let is_right = secret_hash == Secret([5; 32]).hash();
    if admit && is_right {
        member.mesh.set_members(vec![member.entry(), newcomer.entry()]);
    }
    let reason = if is_right { "the invitation is used up" } else { "the secret is wrong" };
    let _ = reply.send(if admit && is_right { Ok(Vec::new()) } else { Err(reason.into()) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_is_admitted_and_linked() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    nodes[0].mesh.set_members(vec![nodes[0].entry()]);
    let invitation = Invitation::parse(&invitation(&nodes[0]).encode()).unwrap();
    let newcomer = nodes.pop().unwrap();
    let (answer, ()) = tokio::join!(newcomer.mesh.hello(&invitation), decide(&mut nodes[0], &newcomer, true));
    assert!(answer.unwrap().chain.is_empty());
    assert_eq!(nodes[0].mesh.counters().hello_admitted, 1);
    nodes.push(newcomer);
    let entries: Vec<_> = nodes.iter().map(Node::entry).collect();
    nodes[1].mesh.set_members(entries.clone());
    nodes.iter().for_each(|node| node.mesh.set_links(entries.clone()));
    all_linked(&mut nodes).await;
    assert_eq!(nodes[0].mesh.counters().strangers, 0, "a newcomer is no stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_why() {
    let mut member = Node::start(1).await;
    let newcomer = Node::start(2).await;
    let good = invitation(&member);
    let refused = |answer: Result<_, HelloError>| match answer {
        Err(HelloError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };

    let (answer, ()) = tokio::join!(newcomer.mesh.hello(&good), decide(&mut member, &newcomer, false));
    assert_eq!(refused(answer), "the invitation is used up");

    let forged = Invitation { secret: Secret([6; 32]), ..good.clone() };
    let (answer, ()) = tokio::join!(newcomer.mesh.hello(&forged), decide(&mut member, &newcomer, true));
    assert_eq!(refused(answer), "the secret is wrong");

    let foreign = Invitation { cluster: ClusterId([8; 16]), ..good.clone() };
    let reason = refused(newcomer.mesh.hello(&foreign).await);
    assert!(reason.contains(&CLUSTER.to_string()), "{reason}");
    assert_eq!(member.mesh.counters().hello_refused, 3);

    let other = Node::start(3).await;
    let moved = Invitation { addresses: vec![other.address.to_string()], ..good.clone() };
    match Node::start(4).await.mesh.hello(&moved).await {
        Err(HelloError::Unreachable(reason)) => assert!(reason.contains("another peer answers"), "{reason}"),
        answer => panic!("{answer:?}"),
    }
    member.mesh.shutdown().await;
    match Node::start(5).await.mesh.hello(&good).await {
        Err(HelloError::Unreachable(reason)) => assert!(reason.contains("refused"), "{reason}"),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_newcomers_at_once_are_bounded_and_none_hangs() {
    let mut member = Node::start(1).await;
    let token = invitation(&member);
    let asking: Vec<_> = (10..40u8)
        .map(|number| {
            let token = token.clone();
            tokio::spawn(async move { Node::start(number).await.mesh.hello(&token).await })
        })
        .collect();
    let answers = tokio::spawn(async move {
        loop {
            if let MeshEvent::Hello { reply, .. } = member.event().await {
                let _ = reply.send(Err("not today".into()));
            }
        }
    });
    for one in asking {
        match one.await.unwrap() {
            Err(HelloError::Refused(reason)) => {
                assert!(reason == "not today" || reason.contains("too many"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }
    answers.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_until_it_is_a_member() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    let entries: Vec<_> = nodes.iter().map(Node::entry).collect();
    nodes[0].mesh.set_members(vec![entries[0].clone()]);
    let stranger = &nodes[1];
    stranger.mesh.set_members(entries.clone());
    stranger.mesh.set_links(entries.clone());
    stranger.mesh.send(entries[0].0, beat(1));
    let refused = stranger.mesh.open(entries[0].0, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("does not know us"), "{refused}");
    counted(&nodes[0].mesh, "the stranger", |counters| counters.strangers > 0).await;
    counted(&stranger.mesh, "the refusal", |counters| counters.unsupported > 0).await;
    assert_eq!(nodes[0].mesh.counters().received, 0);
    nodes[0].mesh.set_members(entries.clone());
    nodes[0].mesh.set_links(entries);
    all_linked(&mut nodes).await;
}
