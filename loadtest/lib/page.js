// The summary as one HTML file that loads nothing from elsewhere.

function escaped(value) {
  return String(value).replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function table(head, rows) {
  const shown = (cell) => (cell === null ? '&ndash;' : escaped(cell));
  const cells = (tag, row) => row.map((cell) => `<${tag}>${shown(cell)}</${tag}>`).join('');
  return `<table><tr>${cells('th', head)}</tr>${rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('')}</table>`;
}

/** Latency over offered load: p50 and p99, a point a step. */
function curve(steps) {
  const [width, height, margin] = [640, 280, 44];
  const known = steps.filter((step) => step.latency !== null);
  if (known.length < 2) return '';
  const right = Math.max(...steps.map((step) => step.offered_rps));
  const top = Math.max(...known.map((step) => step.latency.p99_ms));
  const x = (rate) => margin + (rate / right) * (width - 2 * margin);
  const y = (ms) => height - margin - (ms / top) * (height - 2 * margin);
  const line = (field, colour) => {
    const points = known.map((step) => [x(step.offered_rps), y(step.latency[field])].map((at) => at.toFixed(1)));
    return `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.join(' ')}"/>`;
  };
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Latency over offered load">
<path d="M${margin} ${margin}V${height - margin}H${width - margin}" fill="none" stroke="#888"/>
${line('p50_ms', '#2a7')}${line('p99_ms', '#c33')}
<text x="${width / 2}" y="${height - 8}" text-anchor="middle">offered requests/s (0 to ${right})</text>
<text x="${margin}" y="${margin - 10}">ms (0 to ${top.toFixed(1)}); p50 green, p99 red</text></svg>`;
}

export function page(report) {
  const { objectives, steps, latency, sent_late: late, ...figures } = report;
  delete figures.capacity;
  const title = `${report.scenario}: ${objectives.every(({ ok }) => ok) ? 'objectives met' : 'objectives broken'}`;
  const trends = [['latency', latency], ['sent late', late]].filter(([, trend]) => trend !== null);
  const parts = [
    `<h1>${escaped(title)}</h1>`,
    table(['objective', ''], objectives.map(({ objective, ok }) => [objective, ok ? 'met' : 'broken'])),
    trends.length
      ? table(['', ...Object.keys(trends[0][1])], trends.map(([name, trend]) => [name, ...Object.values(trend)]))
      : '',
    steps ? curve(steps) : '',
    steps
      ? table(
          ['offered/s', 'sent/s', 'answered/s', 'refused', 'expired', 'failed', 'p50 ms', 'p99 ms'],
          steps.map((step) => [
            step.offered_rps, step.sent_rps, step.answered_rps, step.refused, step.expired, step.failed,
            step.latency && step.latency.p50_ms, step.latency && step.latency.p99_ms,
          ]),
        )
      : '',
    table(['', ''], Object.entries(figures)),
  ];
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escaped(title)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}th,td{border-bottom:1px solid #ccc;padding:.2rem .8rem;text-align:left}
td{font-variant-numeric:tabular-nums}svg{max-width:100%}</style>
${parts.join('\n')}</html>
`;
}
