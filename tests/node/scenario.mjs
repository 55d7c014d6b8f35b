// What all scenarios share.

export const SYSTEM = "You are the help desk of Example Ltd.";

/** What the promise fails with; null when it does not. */
export async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return error;
  }
}
