//! `rialto rebalance`.

use rialto_client::Client;
use rialto_protocol::api::{self, MoveRow};

use crate::args::Rebalance;
use crate::exit::Failure;
use crate::output::{Output, say};
use crate::{human, table};

pub async fn rebalance(client: &Client, out: Output, rebalance: Rebalance) -> Result<(), Failure> {
    let told = client.rebalance(!rebalance.dry_run).await?.data;
    match (told.moves.len(), told.begun) {
        (0, _) => say("no move pays more than it costs"),
        (_, false) => say("nothing was moved; without --dry-run it is"),
        (_, true) => say("moved one after the other, each when its replacement runs; 'rialto ps' shows how far it is"),
    }
    out.data(&told, || shown(&told))
}

fn shown(told: &api::Rebalance) -> String {
    if told.moves.is_empty() {
        return String::new();
    }
    let moves = human::count(told.moves.len() as u64, "move");
    let percent = |permille: u64| format!("{} %", permille / 10);
    let (before, after) = (&told.before, &told.after);
    let mut text = format!(
        "{moves}: the fullest machine goes from {} to {}, the emptiest from {} to {}\n",
        percent(before.fullest_permille),
        percent(after.fullest_permille),
        percent(before.emptiest_permille),
        percent(after.emptiest_permille),
    );
    if before.stranded_gpu_milli > 0 {
        let gpus = [before, after].map(|at| human::cores(at.stranded_gpu_milli));
        text += &format!("GPUs that typical tasks cannot use: {}, and {} afterwards\n", gpus[0], gpus[1]);
    }
    let cells = |row: &MoveRow| vec![row.task.clone(), row.from.clone(), row.to.clone(), row.pays.to_string()];
    let rows: Vec<Vec<String>> = told.moves.iter().map(cells).collect();
    text + "\n" + &table::table(&["TASK", "FROM", "TO", "PAYS"], &[], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::api::EvennessRow;

    #[test]
    fn moves_are_a_table_with_what_they_come_to() {
        let row = |task: &str, pays| MoveRow { task: task.into(), from: "m1".into(), to: "m3".into(), pays };
        let at = |fullest_permille, emptiest_permille, stranded_gpu_milli| EvennessRow {
            fullest_permille,
            emptiest_permille,
            stranded_gpu_milli,
        };
        let told = api::Rebalance {
            moves: vec![row("shop.web.1", 400), row("shop.db.1", 150)],
            before: at(925, 0, 1500),
            after: at(612, 540, 250),
            begun: false,
        };
        insta::assert_snapshot!(shown(&told));
        assert_eq!(shown(&api::Rebalance { moves: vec![], ..told }), "");
    }
}
