// Plays scenarios for as long as its input lasts: a line {"script", "scenario", "input"} in, a line {"result"} or
// {"error"} out. One process for all of them: loading the clients takes longer than most scenarios.
import dns from "node:dns";
import readline from "node:readline";

// A client that asks for any host but this machine, for telemetry say, ends it all.
dns.lookup = (host) => {
  console.error(`${host} is not this machine`);
  process.exit(3);
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { script, scenario, input } = JSON.parse(line);
  const { scenarios } = await import(`./${script}.mjs`);
  const answer = await scenarios[scenario](input).then(
    (result) => ({ result }),
    (error) => ({ error: `${error.stack}` }),
  );
  console.log(JSON.stringify(answer));
}
