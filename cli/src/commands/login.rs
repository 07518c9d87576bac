//! `rialto login` and `rialto logout`.

use std::io::{self, IsTerminal, Read};

use rialto_client::Client;
use rialto_protocol::api::{LoginBody, LoginRow};

use crate::args::{Login, Logout};
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::{table, terminal};

/// No password, and no token, is longer.
const PASSWORD_BYTES_MAX: u64 = 16 << 10;

pub async fn login(client: &Client, out: Output, login: Login) -> Result<(), Failure> {
    let (Some(registry), Some(user)) = (login.registry, login.user) else {
        let logins = client.logins().await?.data.logins;
        if logins.is_empty() {
            say("nobody has logged in at a registry yet; 'rialto login REGISTRY -u NAME' does");
        }
        return out.data(&logins, || rows(&logins));
    };
    let password = password(login.password_stdin, &format!("Password of {user} at {registry}: "))?;
    let set = client.log_in(&registry, &LoginBody { user, password }, login.unchecked).await?.data;
    let how = if login.unchecked { "; nobody has asked it whether that opens it" } else { "" };
    say(format!("logged in at {}, for every machine{how}", set.name));
    out.data(&set, String::new)
}

pub async fn logout(client: &Client, out: Output, logout: Logout) -> Result<(), Failure> {
    let row = client.log_out(&logout.registry).await?.data;
    say(format!("logged out of {}", row.registry));
    out.data(&row, String::new)
}

/// What stdin holds but for the end of its line, or what somebody types unseen.
fn password(piped: bool, question: &str) -> Result<String, Failure> {
    let wrong = |error: io::Error| Failure::new(Exit::Failed, format!("stdin: {error}"));
    if !piped && !io::stdin().is_terminal() {
        let failure = Failure::usage("the password is asked for at a terminal, and stdin is none");
        return Err(failure.hint("--password-stdin reads it from there"));
    }
    let text = match piped {
        true => {
            let mut text = String::new();
            io::stdin().lock().take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
            text
        }
        false => terminal::unseen_line(question).map_err(wrong)?,
    };
    let password = text.trim_end_matches(['\r', '\n']);
    match password.len() as u64 {
        0 => Err(Failure::new(Exit::Refused, "the password is empty")),
        length if length > PASSWORD_BYTES_MAX => {
            Err(Failure::new(Exit::Refused, format!("a password has at most {PASSWORD_BYTES_MAX} bytes")))
        }
        _ => Ok(password.to_owned()),
    }
}

fn rows(logins: &[LoginRow]) -> String {
    if logins.is_empty() {
        return String::new();
    }
    let cells = |row: &LoginRow| vec![row.registry.clone(), row.set_at.clone()];
    table::table(&["REGISTRY", "SET"], &[], &logins.iter().map(cells).collect::<Vec<_>>())
}
