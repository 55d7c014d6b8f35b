// Runs the scenario that the command line names and prints what it returns, as JSON.
import dns from "node:dns";

export const SYSTEM = "You are the help desk of Example Ltd.";
export const ADVICE = { steps: ["Open Settings", "Choose Reset"], severity: "low" };

// A client that asks for any host but this machine, for telemetry say, ends the scenario.
dns.lookup = (host) => {
  console.error(`${host} is not this machine`);
  process.exit(3);
};

export async function run(scenarios) {
  const [name, input] = process.argv.slice(2);
  console.log(JSON.stringify(await scenarios[name](JSON.parse(input))));
}

/** What the promise fails with; null when it does not. */
export async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return error;
  }
}
