<?php
// Router of `php -S`: /wiki/Title, /api.php, /index.php, /load.php, /rest.php, /robots.txt, and the picture CDN below
// /images/. One JSON line a request in FX_ROOT/access.jsonl; misbehaves as FX_ROOT/faults.json says (README.md).
$fxRoot = getenv( 'FX_ROOT' );
$fxStarted = microtime( true );
$fxKind = 'page';
$fxUri = $_SERVER['REQUEST_URI'];
$fxPath = parse_url( 'http://h' . $fxUri, PHP_URL_PATH ) ?: '/';
$fxBytes = 0;

ob_start( static function ( $chunk ) use ( &$fxBytes ) {
	$fxBytes += strlen( $chunk );
	return $chunk;
}, 1 << 16 );
register_shutdown_function( static function () use ( &$fxBytes, &$fxKind, $fxStarted, $fxUri, $fxRoot ) {
	while ( ob_get_level() > 0 ) {
		ob_end_flush();
	}
	$line = [
		'at' => round( $fxStarted, 3 ), 'kind' => $fxKind, 'method' => $_SERVER['REQUEST_METHOD'], 'uri' => $fxUri,
		'status' => http_response_code(), 'bytes' => $fxBytes, 'agent' => $_SERVER['HTTP_USER_AGENT'] ?? '',
		'accept' => $_SERVER['HTTP_ACCEPT'] ?? '',
	];
	$json = json_encode( $line, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE );
	file_put_contents( "$fxRoot/access.jsonl", "$json\n", FILE_APPEND | LOCK_EX );
} );

function fxEnd( $status, $body, $type = 'text/html; charset=UTF-8', $headers = [] ) {
	http_response_code( $status );
	header( "Content-Type: $type" );
	foreach ( $headers as $header ) {
		header( $header );
	}
	header( 'Content-Length: ' . strlen( $body ) );
	if ( $_SERVER['REQUEST_METHOD'] !== 'HEAD' ) {
		echo $body;
	}
	exit;
}

// ---- faults --------------------------------------------------------------------------------------------------------

/** How many requests there were since the faults were set, and how many of them within this second. */
function fxCount( $root, $second ) {
	$stream = fopen( "$root/counter", 'c+' );
	flock( $stream, LOCK_EX );
	$old = json_decode( stream_get_contents( $stream ) ?: '{}', true ) ?: [];
	$all = ( $old['all'] ?? 0 ) + 1;
	$now = ( $old['second'] ?? 0 ) === $second ? $old['now'] + 1 : 1;
	ftruncate( $stream, 0 );
	rewind( $stream );
	fwrite( $stream, json_encode( [ 'all' => $all, 'second' => $second, 'now' => $now ] ) );
	fclose( $stream );
	return [ $all, $now ];
}

const FX_CHALLENGE = '<!DOCTYPE html><html><head><title>Just a moment...</title></head>'
	. '<body>Enable JavaScript and cookies to continue</body></html>';
$fxFaults = [];
if ( is_file( "$fxRoot/faults.json" ) && ( $_SERVER['HTTP_USER_AGENT'] ?? '' ) !== 'fixture' ) {
	$fxFaults = json_decode( file_get_contents( "$fxRoot/faults.json" ), true ) ?: [];
}
$fxNumber = 0;
if ( $fxFaults ) {
	[ $fxNumber, $fxNow ] = fxCount( $fxRoot, (int)$fxStarted );
	$fxLater = 'Retry-After: ' . ( $fxFaults['retry_after_s'] ?? 1 );
	usleep( 1000 * ( $fxFaults['latency_ms'] ?? 0 ) );
	foreach ( $fxFaults['agents_403'] ?? [] as $pattern ) {
		if ( preg_match( "~$pattern~i", $_SERVER['HTTP_USER_AGENT'] ?? '' ) ) {
			$fxKind = 'blocked';
			fxEnd( 403, FX_CHALLENGE, 'text/html; charset=UTF-8', [ 'cf-mitigated: challenge', 'Server: cloudflare' ] );
		}
	}
	if ( isset( $fxFaults['requests_per_second'] ) && $fxNow > $fxFaults['requests_per_second'] ) {
		$fxKind = 'limited';
		fxEnd( 429, 'Too Many Requests', 'text/plain', [ $fxLater ] );
	}
	if ( isset( $fxFaults['fail_every'] ) && $fxNumber % $fxFaults['fail_every'] === 0 ) {
		$fxKind = 'failed';
		fxEnd( 503, 'Service Unavailable', 'text/plain', [ $fxLater ] );
	}
	if ( !empty( $fxFaults['html_api'] ) && $fxPath === '/api.php' ) {
		$fxKind = 'blocked';
		fxEnd( 200, FX_CHALLENGE );
	}
}

// ---- robots.txt, pictures ------------------------------------------------------------------------------------------

if ( $fxPath === '/robots.txt' ) {
	$fxKind = 'robots';
	$own = "$fxRoot/robots.txt";
	fxEnd( 200, file_get_contents( is_file( $own ) ? $own : __DIR__ . '/robots.txt' ), 'text/plain' );
}
if ( $fxPath === '/favicon.ico' ) {
	fxEnd( 404, '' );
}
if ( strpos( $fxPath, '/images/' ) === 0 ) {
	$fxKind = 'image';
	fxPicture( "$fxRoot", rawurldecode( substr( $fxPath, 8 ) ), $fxFaults, $fxNumber );
}

/** A picture as Fandom's CDN gives it: the original, an older revision, a smaller copy, or any of them as WebP. */
function fxPicture( $root, $path, $faults, $number ) {
	global $fxKind;
	$width = 0;
	$revision = 'latest';
	if ( strpos( $path, '..' ) !== false ) {
		fxEnd( 400, 'bad' );
	}
	$fandom = '~^([0-9a-f]/[0-9a-f]{2}/[^/]+)(?:/revision/(latest|\d{14}))?'
		. '(?:/(?:scale-to-width-down|scale-to-width|thumbnail/width)/(\d+)(?:/height/\d+)?)?$~';
	if ( preg_match( $fandom, $path, $match ) ) {
		$path = $match[1];
		$revision = ( $match[2] ?? '' ) ?: 'latest';
		$width = (int)( $match[3] ?? 0 );
	} elseif ( preg_match( '~^thumb/([0-9a-f]/[0-9a-f]{2}/[^/]+)/(\d+)px-[^/]+$~', $path, $match ) ) {
		$path = $match[1];
		$width = (int)$match[2];
	} elseif ( strpos( $path, 'archive/' ) !== 0 ) {
		fxEnd( 404, 'no such image' );
	}
	$file = "$root/images/$path";
	if ( $revision !== 'latest' ) {
		$pattern = str_replace( [ '[', ']' ], [ '\[', '\]' ], basename( $path ) );
		$old = glob( "$root/images/archive/" . dirname( $path ) . "/$revision!$pattern" );
		$file = $old ? $old[0] : $file;
	}
	$name = str_replace( '_', ' ', basename( $path ) );
	if ( !is_file( $file ) || in_array( $name, $faults['missing'] ?? [] ) ) {
		fxEnd( 404, 'File not found' );
	}
	$types = [
		'png' => 'image/png', 'jpg' => 'image/jpeg', 'jpeg' => 'image/jpeg', 'gif' => 'image/gif',
		'webp' => 'image/webp', 'svg' => 'image/svg+xml', 'pdf' => 'application/pdf', 'ogg' => 'application/ogg',
	];
	$type = $types[strtolower( pathinfo( $file, PATHINFO_EXTENSION ) )] ?? 'application/octet-stream';
	// The CDN makes WebP for clients that accept it, unless they insist on the original.
	$policy = $faults['webp'] ?? 'accept';
	$accepts = $policy === 'always'
		|| ( $policy !== 'never' && strpos( $_SERVER['HTTP_ACCEPT'] ?? '', 'image/webp' ) !== false );
	$webp = $accepts && ( $_GET['format'] ?? '' ) !== 'original' && in_array( $type, [ 'image/png', 'image/jpeg' ] );
	if ( ( $width > 0 || $webp ) && in_array( $type, [ 'image/png', 'image/jpeg', 'image/webp', 'image/gif' ] ) ) {
		$file = fxCopy( $root, $file, $type, $width, $webp );
		$type = $webp ? 'image/webp' : $type;
	}
	$etag = '"' . md5( $file . filemtime( $file ) . filesize( $file ) ) . '"';
	header( 'Cache-Control: public, max-age=31536000' );
	header( 'Vary: Accept' );
	header( 'Content-Disposition: inline; filename="' . rawurlencode( basename( $path ) ) . '"' );
	header( "ETag: $etag" );
	header( 'Last-Modified: ' . gmdate( 'D, d M Y H:i:s', filemtime( $file ) ) . ' GMT' );
	if ( ( $_SERVER['HTTP_IF_NONE_MATCH'] ?? '' ) === $etag ) {
		http_response_code( 304 );
		exit;
	}
	$body = file_get_contents( $file );
	if ( in_array( $name, $faults['corrupt'] ?? [] ) ) {
		$body = strrev( $body );
	}
	if ( isset( $faults['truncate_every'] ) && $number % $faults['truncate_every'] === 0 ) {
		$fxKind = 'truncated';
		header( "Content-Type: $type" );
		header( 'Content-Length: ' . strlen( $body ) );
		echo substr( $body, 0, intdiv( strlen( $body ), 2 ) );
		exit;
	}
	fxEnd( 200, $body, $type );
}

/** A smaller or transcoded copy, made once; the file itself if GD cannot read it. */
function fxCopy( $root, $file, $type, $width, $webp ) {
	$copy = "$root/cdn-cache/" . md5( $file . filemtime( $file ) . $width . (int)$webp );
	if ( is_file( $copy ) ) {
		return $copy;
	}
	$picture = @imagecreatefromstring( file_get_contents( $file ) );
	if ( !$picture ) {
		return $file;
	}
	imagepalettetotruecolor( $picture );
	imagesavealpha( $picture, true );
	if ( $width > 0 && $width < imagesx( $picture ) ) {
		imagealphablending( $picture, false );
		$picture = imagescale( $picture, $width );
		imagesavealpha( $picture, true );
	}
	ob_start();
	switch ( $webp ? 'image/webp' : $type ) {
		case 'image/webp':
			imagewebp( $picture, null, 85 );
			break;
		case 'image/jpeg':
			imagejpeg( $picture, null, 85 );
			break;
		case 'image/gif':
			imagegif( $picture );
			break;
		default:
			imagepng( $picture );
	}
	$made = $copy . getmypid();
	file_put_contents( $made, ob_get_clean() );
	rename( $made, $copy );
	return $copy;
}

// ---- MediaWiki -----------------------------------------------------------------------------------------------------

$fxMediaWiki = getenv( 'MW_INSTALL_PATH' );
foreach ( [ 'api', 'load', 'rest', 'opensearch_desc' ] as $fxEntry ) {
	if ( $fxPath === "/$fxEntry.php" || strpos( $fxPath, "/$fxEntry.php/" ) === 0 ) {
		$fxKind = $fxEntry;
		$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = "/$fxEntry.php";
		$_SERVER['SCRIPT_FILENAME'] = "$fxMediaWiki/$fxEntry.php";
		if ( strpos( $fxPath, "/$fxEntry.php/" ) === 0 ) {
			$_SERVER['PATH_INFO'] = substr( $fxPath, strlen( "/$fxEntry.php" ) );
		}
		if ( isset( $fxFaults['truncate_api_every'] ) && $fxNumber % $fxFaults['truncate_api_every'] === 0 ) {
			$fxKind = 'truncated';
			ob_start( static fn ( $body ) => substr( $body, 0, intdiv( strlen( $body ), 2 ) ) );
		}
		chdir( $fxMediaWiki );
		require "$fxMediaWiki/$fxEntry.php";
		return true;
	}
}
$fxAsset = '~^/(resources|skins|extensions)/[\w./-]+\.(js|css|png|svg|gif|jpg|woff2?)$~';
if ( preg_match( $fxAsset, $fxPath ) && strpos( $fxPath, '..' ) === false && is_file( $fxMediaWiki . $fxPath ) ) {
	$fxKind = 'asset';
	fxEnd( 200, file_get_contents( $fxMediaWiki . $fxPath ), 'application/octet-stream' );
}
if ( $fxPath === '/' ) {
	fxEnd( 301, '', 'text/html', [ 'Location: /wiki/Main_Page' ] );
}
if ( strpos( $fxPath, '/wiki/' ) === 0 || $fxPath === '/index.php' ) {
	$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = '/index.php';
	$_SERVER['SCRIPT_FILENAME'] = "$fxMediaWiki/index.php";
	chdir( $fxMediaWiki );
	require "$fxMediaWiki/index.php";
	return true;
}
fxEnd( 404, 'Not found' );
