// `--small`: every row in its smallest size, which shows that it runs and says nothing else. The test of the rows uses it.

export const isSmall = process.argv.includes('--small');

/** A size of a row: how much is measured, or what will do to see that it can be. */
export const sized = (full, small) => (isSmall ? small : full);
